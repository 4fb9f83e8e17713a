import { release } from 'node:os';
import type { OpenOptions } from '../../backends/open.ts';
import { hex, KvmError } from '../../base/errors.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Kvm } from '../../handles/kvm.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import type { DirtyPages } from '../../memory/dirty-pages.ts';
import type { Arch } from '../../uapi/arch.ts';
import { cliArch } from '../arch/index.ts';
import { CODE_GPA, DEVICE_GPA, DEVICE_SIZE, RAM_SIZE, RESULTS, scriptedGuest } from './guest.ts';

/** The rows of the table, in order. */
export const LABELS = [
  'NR_MEMSLOTS',
  'guest',
  'guest met',
  'last exit',
  'dirty pages',
  'device got',
  'device gave',
  ...RESULTS.map(({ label }) => label),
  'overlap gets',
  'kernel calls',
  'time',
] as const;

export type Label = (typeof LABELS)[number];

/** Rows that differ between kernels that are the same otherwise. */
const OF_THE_KERNEL: readonly Label[] = ['guest', 'kernel calls', 'time'];
type Rows = Map<Label, string>;

/** What came of the guest on one kernel: rows of the table by their label, and sentences below it. */
export interface Act {
  readonly arch: Arch;
  readonly backend: KvmCalls['backend'];
  readonly pageSize: number;
  readonly kernel: string;
  readonly rows: ReadonlyMap<Label, string>;
  readonly notes: readonly string[];
}

/** Which kernel an act is on. */
export type Stage = Pick<OpenOptions, 'arch' | 'pageSize'> & { readonly backend: KvmCalls['backend'] };

/** Plays the tour's guest on a kernel, real or emulated. @throws KvmError */
export function perform(stage: Stage): Act {
  const started = performance.now();
  let calls = 0;
  const trace = (): void => {
    calls++;
  };
  const kvm = Kvm.open({ ...stage, trace });
  let vm: Vm | undefined;
  const rows = new Map<Label, string>();
  const notes: string[] = [];
  try {
    vm = kvm.createVm();
    rows.set('NR_MEMSLOTS', String(vm.checkExtension('NR_MEMSLOTS')));
    playGuest(vm, rows, notes);
    rows.set('overlap gets', refusedSlot(vm, notes));
    vm.close();
    rows.set('kernel calls', String(calls));
    rows.set('time', `${(performance.now() - started).toFixed(1)} ms`);
  } finally {
    vm?.close();
    kvm.close();
  }
  const { arch, backend, pageSize } = kvm;
  return { arch, backend, pageSize, kernel: kernelName(kvm), rows, notes };
}

/**
 * The rows in which the real kernel and the emulated one of its architecture differ, and should not; undefined where there is no
 * machine code for the real one's guest.
 */
export function differingRows(real: Act, emulated: Act): readonly Label[] | undefined {
  if (cliArch(real.arch).machineCode === undefined) return undefined;
  return LABELS.filter((label) => !OF_THE_KERNEL.includes(label) && real.rows.get(label) !== emulated.rows.get(label));
}

/** `real 6.18.44` on a host of `6.18.44-generic`. */
function kernelName({ backend, emulated }: Pick<Kvm, 'backend' | 'emulated'>): string {
  return backend === 'native' ? `real ${release().replace(/[^\d.].*$/, '')}` : `emulated ${emulated?.release ?? ''}`;
}

function playGuest(vm: Vm, rows: Rows, notes: string[]): void {
  const { kvm, memory } = vm;
  const mapping = kvm.mapAnonymous(RAM_SIZE);
  memory.addRam(0, mapping, { name: 'ram' });
  mapping.close();
  const seen: string[] = [];
  const gave: string[] = [];
  let stored: number | bigint = 0;
  memory.addMmio(
    DEVICE_GPA,
    DEVICE_SIZE,
    {
      write(offset, value) {
        stored = value;
        seen.push(`${hex(value)} at +${offset}`);
      },
      // Twice the byte that was stored: an answer that can't be there by chance.
      read(offset) {
        const value = Number(stored) * 0x0101;
        gave.push(`${hex(value)} at +${offset}`);
        return value;
      },
    },
    { name: 'device' },
  );
  const arch = cliArch(kvm.arch);
  if (kvm.backend === 'native') arch.prepareVm?.(vm);
  const vcpu = vm.createVcpu();
  const part = arch.prepareArchPart?.(vm, vcpu);
  const run = loadGuest(vm, vcpu, rows, notes);
  const dirty = vm.dirtyPages.start();
  rows.set('last exit', run());
  rows.set('dirty pages', pageList(dirty.collect(), kvm.pageSize));
  if (seen.length > 0) rows.set('device got', seen.join(', '));
  if (gave.length > 0) rows.set('device gave', gave.join(', '));
  for (const { gpa, size, label } of RESULTS) {
    const value = size === 1 ? memory.readU8(gpa) : memory.readU32(gpa);
    rows.set(label, hex(value));
  }
  if (part !== undefined) notes.push(`${kvm.arch}, ${kernelName(kvm)}: ${part.report()}`);
}

/** How long a guest may take that is interrupted at its end. */
const RUN_MS = 500;

/** Gives the vCPU its guest, machine code or a program for the emulated one; what runs it, and gives its last exit. */
function loadGuest(vm: Vm, vcpu: Vcpu, rows: Rows, notes: string[]): () => string {
  const { arch, emulated } = vm.kvm;
  const { machineCode, start, startsScripted = false } = cliArch(arch);
  if (emulated === undefined) {
    if (machineCode === undefined) return hostStores(vm, rows, notes);
    const code = Uint8Array.from(machineCode.flatMap((instruction) => instruction.code));
    vm.memory.writeExact(CODE_GPA, code);
    start?.(vm, vcpu, CODE_GPA);
    rows.set('guest', `${code.length} bytes`);
    return () => vcpu.runSync({ timeoutMs: RUN_MS }).reason;
  }
  rows.set('guest', 'scripted');
  const program = scriptedGuest((fault) => {
    rows.set('guest met', `exception ${hex(fault.code)}`);
    notes.push(`${arch} has no MMIO: the guest's store to the device met an ${fault.message}.`);
  });
  if (startsScripted) start?.(vm, vcpu, CODE_GPA);
  emulated.loadGuest(vcpu.fd, program);
  return () => vcpu.runSync().reason;
}

/** A real kernel for which there is no machine code here: this process stores what the guest would. */
function hostStores({ kvm, memory }: Vm, rows: Rows, notes: string[]): () => string {
  rows.set('guest', 'none');
  notes.push(
    `There is no machine code for ${kvm.arch} here: on the real kernel this process stores in place of a guest.`,
  );
  return () => {
    memory.writeU8(0x2000, 0x41);
    memory.writeU32(0x5010, 0x1122_3344);
    return '-';
  };
}

/**
 * `2 5 7 16-31`. Without the page that has nothing but code: whether fetching makes it dirty depends on whether KVM maps a page
 * writable that is only read, and scripted guests have no code.
 */
function pageList(dirty: DirtyPages, pageSize: number): string {
  const gfnOf = (gpa: number): number => Math.floor(gpa / pageSize);
  const ofCode = RESULTS.some(({ gpa }) => gfnOf(gpa) === gfnOf(CODE_GPA)) ? undefined : gfnOf(CODE_GPA);
  const runs: { first: number; last: number }[] = [];
  for (const gfn of dirty.pages()) {
    const run = runs.at(-1);
    if (gfn === ofCode) continue;
    if (run?.last === gfn - 1) run.last = gfn;
    else runs.push({ first: gfn, last: gfn });
  }
  return runs.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`)).join(' ') || 'none';
}

/** What the kernel says to a second slot where the first one is. */
function refusedSlot(vm: Vm, notes: string[]): string {
  const [slot] = vm.memslots;
  if (slot === undefined) return '';
  try {
    const region = { slot: slot.id + 1, guestPhysAddr: 0, memorySize: RAM_SIZE, userspaceAddr: slot.hva };
    vm.setUserMemoryRegion(region);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof KvmError)) throw error;
    notes.push(`${error.code}: ${error.explanation ?? error.message}.`);
    return error.code;
  }
}
