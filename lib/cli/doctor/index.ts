import { table, wrap } from '../../base/text.ts';
import type { Command } from '../command.ts';
import { columnsOf, type Io, type Style, styleFor } from '../io.ts';
import { examineDevice } from './device.ts';
import type { Finding } from './finding.ts';
import { type Host, thisHost } from './host.ts';
import { type CapabilityFinding, examineAddon, examineKvm } from './kvm.ts';
import {
  examineExamples,
  examineHugePages,
  examineLabs,
  examineLimits,
  examineModules,
  examineOvercommit,
  examinePgste,
  examinePpc64,
  examineSystem,
  examineUserfaultfd,
} from './surroundings.ts';

/** Everything the doctor found out. */
export interface Diagnosis {
  /** Whether the real KVM can be used: nothing failed. */
  readonly usable: boolean;
  readonly findings: readonly Finding[];
  readonly capabilities: readonly CapabilityFinding[];
}

/** Examines a machine: what of the real KVM works there. Nothing is changed. */
export function diagnose(host: Host = thisHost): Diagnosis {
  const system = examineSystem(host);
  const addon = examineAddon(host);
  const findings: Finding[] = [system, addon.finding];
  let capabilities: CapabilityFinding[] = [];
  if (system.status !== 'fail') {
    const device = examineDevice(host);
    const ofArch = [examinePgste(host), ...examinePpc64(host)].filter((found) => found !== undefined);
    findings.push(examineModules(host), device, ...ofArch);
    if (device.status !== 'fail' && addon.calls !== undefined) {
      const kvm = examineKvm(host, addon.calls);
      findings.push(...kvm.findings);
      capabilities = kvm.capabilities;
    }
    const rest = [
      ...examineLimits(host),
      examineHugePages(host),
      examineOvercommit(host),
      examineUserfaultfd(host),
      examineLabs(host),
      examineExamples(host),
    ];
    findings.push(...rest.filter((found) => found !== undefined));
  }
  return { usable: findings.every(({ status }) => status !== 'fail'), findings, capabilities };
}

/** Why the real KVM cannot be used, and what mends it: the first thing that fails, in the doctor's words; undefined where it can be. */
export function whyNotReal(
  host: Host = thisHost,
): { readonly why: string; readonly mend?: string | undefined } | undefined {
  const failed = diagnose(host).findings.find(({ status }) => status === 'fail');
  // What follows the first line is for the doctor to tell.
  return failed && { why: `${failed.subject}: ${failed.detail.split('\n', 1)[0]}`, mend: failed.mend };
}

/** `kvm-bridge doctor`: exit status 0 when the real KVM is usable, else 1. */
export function doctorCommand(io: Io, { json }: { readonly json: boolean }, host: Host = thisHost): number {
  const diagnosis = diagnose(host);
  io.stdout.write(
    json
      ? `${JSON.stringify(diagnosis, null, 2)}\n`
      : report(diagnosis, styleFor(io.stdout, io.env), columnsOf(io.stdout)),
  );
  return diagnosis.usable ? 0 : 1;
}

export const doctor: Command = {
  summary: 'what the real KVM has and lacks here, and what mends it',
  usage: '[--json]',
  details: 'The status is 0 where the real KVM is usable, else 1.',
  options: { json: { type: 'boolean', help: 'the same as JSON' } },
  run: (values, _, io) => doctorCommand(io, { json: values.json === true }),
};

/** The diagnosis as text. */
export function report({ usable, findings, capabilities }: Diagnosis, style: Style, columns: number): string {
  const subjects = Math.max(...findings.map(({ subject }) => subject.length));
  const lines = findings.flatMap((finding) => findingLines(finding, subjects, style, columns));
  const head = wrap('What the real KVM has and lacks on this machine', columns).map(style.bold);
  const parts = [...head, '', ...lines, ''];
  if (capabilities.length > 0) parts.push(capabilityTable(capabilities, style, columns), '');
  parts.push(
    usable
      ? style.green('Real KVM is usable here.')
      : `${style.red('Real KVM is not usable here.')} The emulated kernel is, here and anywhere.`,
  );
  return `${parts.join('\n')}\n`;
}

const STATUS_WIDTH = 4;
const LEAST_WIDTH = 30;

function findingLines({ subject, status, detail, mend }: Finding, subjects: number, style: Style, columns: number) {
  const colour = { ok: style.green, note: style.yellow, fail: style.red }[status];
  const beside = 2 + STATUS_WIDTH + 2 + subjects + 2;
  // Where there is no room beside the subject, it goes below.
  const isNarrow = columns - beside < LEAST_WIDTH;
  const indent = isNarrow ? 2 + STATUS_WIDTH + 2 : beside;
  const text = detail.split('\n').flatMap((line) => wrap(line, columns - indent));
  const [first = '', ...rest] = isNarrow ? ['', ...text] : text;
  const head = `  ${colour(status.padEnd(STATUS_WIDTH))}  ${`${subject.padEnd(isNarrow ? 0 : subjects)}  ${first}`.trimEnd()}`;
  // Commands stay on one line, to be copied.
  const tail = mend === undefined ? [] : [`→ ${mend}`].map((line) => style.cyan(line));
  return [head, ...[...rest, ...tail].map((line) => ' '.repeat(indent) + line)];
}

function capabilityTable(capabilities: readonly CapabilityFinding[], style: Style, columns: number): string {
  const [headings = '', ...rows] = table(
    ['capability', 'value', ''],
    capabilities.map(({ name, value, meaning }) => [name, value === 0 ? '-' : String(value), meaning]),
    columns,
  ).split('\n');
  let of = -1;
  const shown = rows.map((row) => {
    // A name has no blanks, and is never folded: where none begins, the row before goes on.
    if (/^ {2}\S/.test(row)) of++;
    return capabilities[of]?.value === 0 ? style.dim(row) : row;
  });
  return [style.bold(headings), ...shown].join('\n');
}
