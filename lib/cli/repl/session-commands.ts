import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../backends/package-root.ts';
import { replaceFile } from '../../base/replace-file.ts';
import { counted, table, wrap } from '../../base/text.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { diagnose, report } from '../doctor/index.ts';
import { suggestion } from '../nearest.ts';
import { LineFile } from '../output-file.ts';
import { describeKernel } from './banner.ts';
import { type DotCommand, DotUsageError } from './dot-command.ts';
import { examplesFor } from './examples.ts';

const caps: DotCommand = {
  usage: '[NAME] [--json]',
  help: "The kernel's capabilities that are there, or those whose name has a part",
  words: () => ['--json'],
  run(argument, { session: { kvm }, tableWidth }) {
    const all = Object.entries(kvm.capabilities());
    const words = argument.split(/\s+/);
    const part = words
      .filter((word) => word !== '--json')
      .join(' ')
      .toUpperCase();
    const chosen = all.filter(([name, value]) => (part === '' ? value !== 0 : name.includes(part)));
    if (chosen.length === 0) throw new DotUsageError(`no capability has ${part} in its name`);
    if (words.includes('--json')) return JSON.stringify(Object.fromEntries(chosen), null, 2);
    return table(
      ['capability', 'value'],
      chosen.map(([name, value]) => [name, `${value}`]),
      tableWidth,
    );
  },
};

const explain: DotCommand = {
  usage: 'ERRNO',
  help: 'What an error of the kernel means, call by call: .explain EEXIST',
  words: () => Object.keys(ERRNO),
  run(argument, { tableWidth }) {
    if (argument === '') throw new DotUsageError('which errno? A name, or its number');
    const byNumber = Object.entries(ERRNO).find(([, number]) => number === Math.abs(Number(argument)));
    const name = byNumber?.[0] ?? argument.toUpperCase();
    const root = packageRoot();
    if (root === undefined) throw new DotUsageError('the documents are not here');
    const sections = readFileSync(join(root, 'docs/errors.md'), 'utf8').split(/^## /m).slice(1);
    const section = sections.find((text) => new RegExp(`^${name.replace(/\W/g, '')}\\b`).test(text));
    if (section !== undefined) return folded(section.trimEnd(), tableWidth);
    throw new DotUsageError(`there is nothing on ${name}${suggestion(name, Object.keys(ERRNO))}`);
  },
};

/** Paragraphs and the points of lists, folded to a screen of some width. */
function folded(text: string, width: number): string {
  if (width === Number.POSITIVE_INFINITY) return text;
  const paragraphs = text.split(/\n(?=\n|\* )/);
  return paragraphs
    .flatMap((paragraph) => {
      if (paragraph === '') return [''];
      const isPoint = paragraph.startsWith('* ');
      const lines = wrap(isPoint ? paragraph.slice(2) : paragraph, isPoint ? width - 2 : width);
      const [first = '', ...rest] = lines;
      return isPoint
        ? [`* ${first}`, ...rest.map((line) => `  ${line}`)]
        : paragraph.startsWith('\n')
          ? ['', ...lines]
          : lines;
    })
    .join('\n');
}

let traceFile: LineFile | undefined;

const trace: DotCommand = {
  usage: 'on|off|FILE',
  help: 'Calls to the kernel as lines: here, nowhere, or in a file',
  words: () => ['on', 'off'],
  run(argument, prompt) {
    if (argument === '') throw new DotUsageError('.trace on, .trace off or .trace FILE');
    traceFile?.close();
    traceFile = undefined;
    if (argument === 'on' || argument === 'off') {
      prompt.setTrace(argument === 'on' ? prompt.showTrace : undefined);
      return `trace ${argument}`;
    }
    traceFile = new LineFile(argument, (sentence) => {
      prompt.setTrace(undefined);
      prompt.showFailure(`.trace: ${sentence}; the trace ends here`);
    });
    prompt.setTrace(traceFile.write);
    return `trace goes to ${argument}`;
  },
};

const save: DotCommand = {
  usage: 'FILE',
  help: 'What was typed, as a script for kvm-bridge run',
  run(argument, { typed, session: { kvm } }) {
    if (argument === '') throw new DotUsageError('.save FILE');
    const options =
      kvm.backend === 'native' ? '' : ` --backend emulated --arch ${kvm.arch} --release ${kvm.emulated?.release}`;
    replaceFile(argument, `// kvm-bridge run${options} ${argument}\n${typed.map((line) => `${line}\n`).join('')}`);
    return `${counted(typed.length, 'line')} in ${argument}`;
  },
};

export const SESSION_COMMANDS: Readonly<Record<string, DotCommand>> = {
  caps,
  explain,
  trace,
  save,
  examples: { help: 'Lines to try', run: (_, { session: { kvm } }) => examplesFor(kvm.arch) },
  kernel: { help: 'Which kernel kvm and vm are of', run: (_, { session }) => describeKernel(session.kvm) },
  doctor: {
    help: 'What the real KVM has and lacks on this machine',
    run: (_, { style, columns }) => report(diagnose(), style, columns).trimEnd(),
  },
};
