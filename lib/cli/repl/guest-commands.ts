import { htabStats } from '../../arch/ppc64/model/index.ts';
import { formatStorageKeys } from '../../arch/s390x/model/index.ts';
import { hex } from '../../base/errors.ts';
import { table } from '../../base/text.ts';
import type { Register } from '../arch/cli-arch.ts';
import { cliArch } from '../arch/index.ts';
import { type DotCommand, DotUsageError, numberOf, type Prompt, wordsOf } from './dot-command.ts';
import { walk } from './walk.ts';

function requireArch({ session }: Prompt, arch: string, what: string): void {
  if (session.kvm.arch !== arch) throw new DotUsageError(`${what} are ${arch}'s, and this is ${session.kvm.arch}`);
}

const walkCommand: DotCommand = {
  usage: 'ADDRESS',
  help: 'How a virtual address of the first vCPU is translated, step by step',
  run: (argument, prompt) => walk(numberOf(argument, 'the address', prompt), prompt).text,
};

const keys: DotCommand = {
  usage: '[FRAME [COUNT]]',
  help: 's390x: storage keys of frames, equal ones in one line',
  run(argument, prompt) {
    requireArch(prompt, 's390x', 'storage keys');
    const [first = '0', count = '256'] = wordsOf(argument);
    const from = numberOf(first, 'the frame', prompt);
    const bytes = prompt.session.vm.storageKeys.getBytes(from, Number(numberOf(count, 'the count', prompt)));
    if (bytes === null) return 'the guest uses no storage keys';
    return foldedKeys(bytes, Number(from)).join('\n');
  },
};

function foldedKeys(bytes: Uint8Array, from: number): string[] {
  const lines = [...formatStorageKeys(bytes, from)];
  const folded: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    let end = at + 1;
    while (end < bytes.length && bytes[end] === bytes[at]) end++;
    folded.push(
      end - at > 1 ? `${lines[at]}  (and ${end - at - 1} more, to frame ${hex(from + end - 1)})` : lines[at]!,
    );
    at = end;
  }
  return folded;
}

const hpt: DotCommand = {
  help: "ppc64: what is in the guest's hashed page table",
  run(_, prompt) {
    requireArch(prompt, 'ppc64', 'hashed page tables');
    const { vm } = prompt.session;
    const order = vm.hpt.getOrder();
    if (order === undefined) return 'there is no table: vm.hpt.allocate(24) makes one of 16 MiB';
    const found = htabStats(vm.hpt.read());
    const rows: [string, string][] = [
      ['order', `${order}`],
      ['slots', `${found.slots} in ${found.groups} groups`],
      ['valid', `${found.valid}`],
      ['bolted', `${found.bolted}`],
      ['secondary', `${found.secondary}`],
      ['referenced', `${found.referenced}`],
      ['changed', `${found.changed}`],
      ...[...found.pageSizes].map(([size, count]): [string, string] => [`page size ${size}`, `${count}`]),
    ];
    return table(['hashed page table', ''], rows);
  },
};

const regs: DotCommand = {
  usage: '[VCPU]',
  help: 'Registers of a vCPU, the first one by default',
  run(argument, prompt) {
    const { vm, kvm } = prompt.session;
    const id = argument === '' ? undefined : Number(numberOf(argument, 'the vCPU', prompt));
    const vcpu = id === undefined ? vm.vcpus[0] : vm.vcpus.find((each) => each.id === id);
    if (vcpu === undefined) {
      if (vm.vcpus.length === 0) throw new DotUsageError('there is no vCPU: vm.createVcpu() makes one');
      const there = vm.vcpus.map((each) => each.id).join(', ');
      throw new DotUsageError(`there is no vCPU ${id}; there ${vm.vcpus.length === 1 ? 'is' : 'are'} ${there}`);
    }
    const { registers } = cliArch(kvm.arch);
    if (registers === undefined) throw new DotUsageError(`registers of ${kvm.arch} have no names here`);
    return inColumns(registers(vcpu), prompt.columns);
  },
};

const MOST_IN_A_ROW = 4;
const BETWEEN = '  ';

function inColumns(registers: readonly Register[], columns: number): string {
  const width = Math.max(...registers.map(([name]) => name.length));
  const cells = registers.map(([name, value]) => `${name.padStart(width)} ${value.toString(16).padStart(16, '0')}`);
  const fitting = Math.floor((columns + BETWEEN.length) / ((cells[0]?.length ?? 0) + BETWEEN.length));
  const inRow = Math.min(MOST_IN_A_ROW, Math.max(1, fitting));
  const rows: string[] = [];
  for (let at = 0; at < cells.length; at += inRow) rows.push(cells.slice(at, at + inRow).join(BETWEEN));
  return rows.join('\n');
}

export const GUEST_COMMANDS: Readonly<Record<string, DotCommand>> = { walk: walkCommand, keys, hpt, regs };
