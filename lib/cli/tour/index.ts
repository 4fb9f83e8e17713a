import { release } from 'node:os';
import { hex, KvmError } from '../../base/errors.ts';
import { wrap } from '../../base/text.ts';
import { type Arch, archOfNode } from '../../uapi/arch.ts';
import { cliArch } from '../arch/index.ts';
import type { Instruction } from '../arch/machine-code.ts';
import type { Command } from '../command.ts';
import { whyNotReal } from '../doctor/index.ts';
import { explainError } from '../explain-error.ts';
import { columnsOf, type Io, type Style, styleFor } from '../io.ts';
import { packageVersion } from '../package-info.ts';
import { type Act, differingRows, perform } from './act.ts';
import { CODE_GPA, DEVICE_GPA, RAM_SIZE } from './guest.ts';
import { sideBySide } from './layout.ts';

/** As many as fit side by side into 80 columns. */
const EMULATED: readonly Arch[] = ['x86_64', 's390x', 'ppc64', 'riscv64'];

/**
 * `kvm-bridge tour`: one guest on the real kernel, if there is one that can be used, and on emulated ones.
 * Ends with status 0 whether or not there is a real one.
 */
export function tourCommand(io: Io, { json = false } = {}): number {
  if (json) return tourAsJson(io);
  const style = styleFor(io.stdout, io.env);
  const columns = columnsOf(io.stdout);
  const paragraph = (text: string, paint = (line: string) => line): void => {
    io.stdout.write(`${wrap(text, columns).map(paint).join('\n')}\n`);
  };
  paragraph(`kvm-bridge ${packageVersion()}, Node ${process.version}, ${process.platform} ${release()}`, style.bold);
  io.stdout.write('\n');
  paragraph(
    `A guest with ${hex(RAM_SIZE)} bytes of RAM stores into some pages of it, then to a device at ${hex(DEVICE_GPA)}, asks that for a value, and keeps the value in RAM.`,
  );

  const acts: Act[] = [];
  const real = tryReal();
  if ('act' in real) {
    acts.push(real.act);
    const code = cliArch(real.act.arch).machineCode;
    if (code !== undefined) io.stdout.write(`\n${listing(code, style)}`);
  }
  const [host] = acts;
  for (const arch of new Set([...EMULATED, ...acts.map((act) => act.arch)])) {
    // As the host, where it is one of these: ppc64 has pages of 4 or of 64 KiB.
    acts.push(perform({ backend: 'emulated', arch, ...(host?.arch === arch ? { pageSize: host.pageSize } : {}) }));
  }
  io.stdout.write(`\n${sideBySide(acts, style, columns)}\n`);
  for (const note of new Set([...comparison(acts), ...acts.flatMap(({ notes }) => notes)])) {
    const [first = '', ...rest] = wrap(note, columns - 4);
    io.stdout.write([`  - ${first}`, ...rest.map((line) => `    ${line}`), ''].join('\n'));
  }

  io.stdout.write('\n');
  if ('why' in real) {
    paragraph(`The real kernel is not among them: ${real.why}`, style.yellow);
    if (real.mend !== undefined) io.stdout.write(`  ${style.cyan(`→ ${real.mend}`)}\n`);
    io.stdout.write('\n');
  }
  paragraph('Next: npx kvm-bridge (a prompt), npx kvm-bridge doctor, and the examples in examples/.', style.dim);
  return 0;
}

export const tour: Command = {
  summary: 'one guest on the real kernel and on emulated ones, side by side',
  usage: '[--json]',
  options: { json: { type: 'boolean', help: 'the same as JSON' } },
  run: (values, _positionals, io) => tourCommand(io, { json: values.json === true }),
};

function tourAsJson(io: Io): number {
  const real = tryReal();
  const acts = [
    ...('act' in real ? [real.act] : []),
    ...EMULATED.map((arch) => perform({ backend: 'emulated', arch })),
  ];
  const shown = acts.map(({ rows, ...act }) => ({ ...act, rows: Object.fromEntries(rows) }));
  const absent = 'why' in real ? { notReal: { why: real.why, mend: real.mend } } : {};
  io.stdout.write(`${JSON.stringify({ acts: shown, ...absent }, null, 2)}\n`);
  return 0;
}

function comparison(acts: readonly Act[]): string[] {
  const real = acts.find(({ backend }) => backend === 'native');
  const emulated = acts.find(({ backend, arch }) => backend === 'emulated' && arch === real?.arch);
  if (real === undefined || emulated === undefined) return [];
  const different = differingRows(real, emulated);
  if (different === undefined) return [];
  return different.length === 0
    ? [`The real and the emulated ${real.arch} agree in all that the guest did.`]
    : [`The real and the emulated ${real.arch} differ in: ${different.join(', ')}.`];
}

type Real = { readonly act: Act } | { readonly why: string; readonly mend?: string | undefined };

function tryReal(): Real {
  const cause = whyNotReal();
  if (cause !== undefined) return cause;
  const arch = archOfNode(process.arch);
  try {
    return { act: perform({ backend: 'native', ...(arch === undefined ? {} : { arch }) }) };
  } catch (error) {
    if (!(error instanceof KvmError)) throw error;
    return { why: explainError(error), mend: 'npx kvm-bridge doctor' };
  }
}

const CODE_WIDTH = 24;

/** The machine code, as a disassembler would show it. */
function listing(code: readonly Instruction[], style: Style): string {
  let address = CODE_GPA;
  const lines = code.map((instruction) => {
    const bytes = instruction.code.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const line = `  ${hex(address)}  ${style.dim(bytes.padEnd(CODE_WIDTH))}  ${instruction.text}`;
    address += instruction.code.length;
    return line;
  });
  return `${lines.join('\n')}\n`;
}
