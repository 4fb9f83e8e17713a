import { hex } from '../../base/errors.ts';
import { counted, humanSize, table } from '../../base/text.ts';

/** What a guest did from one look to the next. */
export interface Look {
  readonly seconds: number;
  readonly vcpus: number;
  /** How many of them are in their guest. */
  readonly running: number;
  /** Exits of all vCPUs by reason, the most frequent first. */
  readonly exits: readonly { readonly reason: string; readonly count: number }[];
  readonly dirty: DirtyLook;
}

/** Pages that became dirty by region, or why that is not known. */
export type DirtyLook =
  | { readonly whyNot: string }
  | { readonly collectedByScript: boolean; readonly pageSize: number; readonly regions: readonly RegionLook[] };

export interface RegionLook {
  readonly gpa: number;
  readonly size: number;
  readonly name: string | undefined;
  readonly dirtyPages: number;
}

export const lookAsText = (look: Look): string =>
  [exitsAsText(look), '', dirtyAsText(look.dirty, look.seconds)].join('\n');

/** One line; addresses are numbers, as in the script. */
export const lookAsJson = (look: Look): string => JSON.stringify(look);

function exitsAsText({ seconds, vcpus, running, exits }: Look): string {
  const total = exits.reduce((sum, { count }) => sum + count, 0);
  const head = `${running} of ${counted(vcpus, 'vCPU')} in ${vcpus === 1 ? 'its' : 'their'} guest, ${rate(total, seconds)} exits a second`;
  const rows = exits.map(({ reason, count }) => [reason, rate(count, seconds), `${count}`]);
  return rows.length === 0 ? head : `${head}\n${table(['exit', 'a second', 'count'], rows)}`;
}

function dirtyAsText(dirty: DirtyLook, seconds: number): string {
  if ('whyNot' in dirty) return dirty.whyNot;
  const { collectedByScript, pageSize, regions } = dirty;
  const rows = regions.map(({ gpa, size, name, dirtyPages }) => {
    const share = size === 0 ? 0 : (100 * dirtyPages * pageSize) / size;
    return [
      name ?? hex(gpa),
      rate(dirtyPages, seconds),
      `${humanSize(Math.round((dirtyPages * pageSize) / seconds))}/s`,
      `${share.toFixed(share < 10 ? 2 : 0)}%`,
    ];
  });
  const head = collectedByScript ? 'dirty pages as the script collects them, which is when they are counted\n' : '';
  return `${head}${table(['region', 'dirty pages a second', '', 'of it'], rows)}`;
}

const rate = (count: number, seconds: number): string => {
  const value = count / seconds;
  return value.toFixed(value > 0 && value < 10 ? 1 : 0);
};
