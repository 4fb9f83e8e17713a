import { differenceFrom } from './emulated-answer.ts';
import { SCENARIOS } from './index.ts';
import type { Taken, TakenSet } from './take.ts';

export interface Compared extends Taken {
  /** The first difference between the real kernel and the emulated one, as a sentence; undefined when there is none. */
  readonly difference: string | undefined;
}

/** Asks the emulated kernel the same. */
export async function compareWithEmulated({ emulate, taken }: TakenSet): Promise<readonly Compared[]> {
  return Promise.all(
    taken.map(async (real) => {
      const scenario = SCENARIOS.find(({ name }) => name === real.name);
      if (scenario === undefined) return { ...real, difference: 'there is no such scenario any more' };
      return { ...real, difference: await differenceFrom(scenario, emulate, real.lines) };
    }),
  );
}

/** The comparison as a table: scenario, calls, time on the real kernel, and whether the answers were identical. */
export function comparisonTable(compared: readonly Compared[]): string {
  const width = Math.max(...compared.map(({ name }) => name.length), 'scenario'.length);
  const rows = compared.map(({ name, lines, ms, difference, atFirst }) => {
    const identical = atFirst === undefined ? 'identical' : `identical when asked again; at first ${atFirst}`;
    return [name.padEnd(width), String(lines.length).padStart(5), `${ms} ms`.padStart(9), difference ?? identical].join(
      '  ',
    );
  });
  const different = compared.filter(({ difference }) => difference !== undefined).length;
  const calls = compared.reduce((sum, { lines }) => sum + lines.length, 0);
  return [
    [`${'scenario'.padEnd(width)}`, 'calls', '     time', 'emulated kernel'].join('  '),
    ...rows,
    `${compared.length} scenarios, ${calls} calls: ${different === 0 ? 'all identical' : `${different} different`}`,
  ].join('\n');
}
