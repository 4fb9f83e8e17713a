import type { EmulatedKernelOptions } from '../../backends/emulated.ts';
import { counted, wrap } from '../../base/text.ts';
import type { TraceHead } from '../../calls/trace-file.ts';
import { ARCHES, type Arch } from '../../uapi/arch.ts';
import { REFERENCE_RELEASE } from '../../uapi/release.ts';
import type { Command, Values } from '../command.ts';
import { inputProblem } from '../file-problem.ts';
import { nameOf, readInput, unpacked } from '../input.ts';
import { columnsOf, complain, type Io, type Style, styleFor, UsageError } from '../io.ts';
import { architectureOption, oneOf, pageSizeOf, pageSizeOption, releaseOption } from '../session.ts';
import { TraceBounds } from './bounds.ts';
import type { Difference } from './compare.ts';
import { readTrace, TraceFileError } from './read-trace.ts';
import { Replayer } from './replayer.ts';

/** As of diff(1). */
const STATUS = { SAME: 0, DIFFERS: 1, TROUBLE: 2 } as const;

/** Differences that are shown. */
const MOST_SHOWN = 20;

/** One opened kernel of a trace, replayed. */
interface Replayed {
  readonly head: TraceHead;
  readonly options: EmulatedKernelOptions;
  readonly replayer: Replayer;
}

/** `kvm-bridge replay`. */
export const replay: Command = {
  summary: "a trace of --trace-out on the emulated kernel, and where that kernel's answers are others",
  usage: '[OPTION…] FILE|-',
  details: `The status is 0 where every answer is the same, 1 where some differ, 2 where the file is no trace. Without options the emulated
kernel is the one that the trace names: the architecture, release and build of the kernel that was traced. Guests are not in a trace, only
what they did: a scripted one stores the same and leaves the same way. What was not compared is said.`,
  options: {
    ...architectureOption,
    ...releaseOption,
    ...pageSizeOption,
    json: { type: 'boolean', help: 'the same as JSON' },
  },
  positionals: { least: 1, most: 1 },
  run: (values, [file = '-'], io) => replayCommand(io, file, values),
};

async function replayCommand(io: Io, file: string, values: Values): Promise<number> {
  const name = nameOf(file);
  let replays: Replayed[];
  try {
    replays = await replayAll(io, file, values);
  } catch (error) {
    const problem = error instanceof TraceFileError ? error.message : inputProblem(error, file);
    if (problem === undefined) throw error;
    complain(io, 'replay', `${name}: ${problem}`);
    return STATUS.TROUBLE;
  }
  const differ = replays.some(({ replayer }) => replayer.differences.length > 0);
  io.stdout.write(
    values.json === true
      ? `${JSON.stringify({ file: name, same: !differ, replays: replays.map(asJson) }, null, 2)}\n`
      : replays.map((one) => asText(name, one, styleFor(io.stdout, io.env), columnsOf(io.stdout))).join('\n'),
  );
  return differ ? STATUS.DIFFERS : STATUS.SAME;
}

/** @throws TraceFileError, Node's errors of the file, UsageError */
async function replayAll(io: Io, file: string, values: Values): Promise<Replayed[]> {
  const asked: AskedFor = {
    arch: oneOf(ARCHES, 'arch', values, 'replay'),
    release: values.release === undefined ? undefined : String(values.release),
    pageSize: pageSizeOf(values, 'replay'),
  };
  const replays: Replayed[] = [];
  const bounds = new TraceBounds();
  for await (const { line, head, event } of readTrace(unpacked(readInput(file, io)))) {
    if (head !== undefined) {
      const options = optionsOf(head, asked, line);
      replays.push({ head, options, replayer: open(options, head, line) });
    } else if (event !== undefined) {
      const [now] = replays.slice(-1);
      if (now === undefined) throw new TraceFileError(`line ${line}: a call stands before the trace's head`);
      bounds.take(line, event);
      now.replayer.take({ line, event });
    }
  }
  if (replays.length === 0) throw new TraceFileError('it is empty');
  return replays;
}

function open(options: EmulatedKernelOptions, { arch }: TraceHead, line: number): Replayer {
  try {
    return new Replayer(options, arch as Arch);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
    throw new UsageError(`line ${line}: ${error.message}`, 'replay');
  }
}

/** What was said of the emulated kernel on the command line. */
interface AskedFor {
  readonly arch: Arch | undefined;
  readonly release: string | undefined;
  readonly pageSize: number | undefined;
}

function optionsOf({ emulate = {} }: Partial<TraceHead>, asked: AskedFor, line: number): EmulatedKernelOptions {
  const { arch, release, pageSize } = asked;
  const chosen = (arch ?? emulate.arch) as Arch;
  if (!ARCHES.includes(chosen)) {
    const what = chosen === undefined ? 'does not say of which architecture it is' : `is of ${String(chosen)}`;
    throw new TraceFileError(`line ${line}: the trace ${what}: --arch takes one of ${ARCHES.join(', ')}`);
  }
  const traced = (chosen === emulate.arch ? emulate : {}) as Partial<EmulatedKernelOptions>;
  return {
    ...traced,
    arch: chosen,
    ...(release === undefined ? {} : { release }),
    ...(pageSize === undefined ? {} : { pageSize }),
  };
}

const asJson = ({ head, options, replayer: { calls, differences, notCompared } }: Replayed): object => ({
  traced: { backend: head.backend, arch: head.arch, release: head.release, pageSize: head.pageSize },
  emulated: options,
  calls,
  differences,
  notCompared: Object.fromEntries(notCompared),
});

function asText(file: string, { head, options, replayer }: Replayed, style: Style, columns: number): string {
  const { calls, differences, notCompared } = replayer;
  const kernel = head.backend === 'native' ? 'the real' : 'an emulated';
  const first = `${file}: ${counted(calls, 'call')} of ${kernel} ${head.arch} kernel ${head.release}`;
  const second = `replayed on the emulated ${options.arch} kernel ${options.release ?? REFERENCE_RELEASE}`;
  const left = [...notCompared].map(([reason, count]) => `not compared: ${reason} (${count})`);
  const shown = differences.slice(0, MOST_SHOWN).flatMap((difference) => differenceLines(difference, head, style));
  const more =
    differences.length > MOST_SHOWN
      ? [`… and ${counted(differences.length - MOST_SHOWN, 'difference')} more (--json has all)`]
      : [];
  const verdict =
    differences.length === 0
      ? style.green('every answer is the same')
      : style.red(`${counted(differences.length, 'answer')} ${differences.length === 1 ? 'differs' : 'differ'}`);
  return `${[...wrap(first, columns), ...wrap(second, columns), ...shown, ...more, ...left.flatMap((text) => wrap(text, columns)), verdict].join('\n')}\n`;
}

function differenceLines({ line, call, recorded, emulated }: Difference, head: TraceHead, style: Style): string[] {
  const whose = head.backend === 'native' ? 'real' : 'traced';
  return [`line ${line}: ${style.bold(call)}`, `  ${whose.padEnd(8)} ${recorded}`, `  emulated ${emulated}`];
}
