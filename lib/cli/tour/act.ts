import { release } from 'node:os';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { hex, KvmError } from '../../errors.ts';
import { Kvm } from '../../kvm.ts';
import type { DirtyPages } from '../../memory/dirty-pages.ts';
import type { Arch } from '../../uapi/arch.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { Vm } from '../../vm.ts';
import { prepareRealMode, startInRealMode } from '../guest-x86.ts';
import { CODE_GPA, DEVICE_GPA, DEVICE_SIZE, RAM_SIZE, RESULTS, scriptedGuest, X86_CODE } from './guest.ts';
import { type Own, useHashPageTable, useStorageKeys } from './own.ts';

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
type Rows = Map<Label, string>;

/** What came of the guest on one kernel: rows of the table by their label, and sentences below it. */
export interface Act {
  readonly arch: Arch;
  readonly backend: KvmCalls['backend'];
  readonly kernel: string;
  readonly rows: ReadonlyMap<Label, string>;
  readonly notes: readonly string[];
}

/** Plays the tour's guest on a kernel, real or emulated. @throws KvmError */
export function perform(options: { readonly backend: KvmCalls['backend']; readonly arch?: Arch }): Act {
  const started = performance.now();
  let calls = 0;
  const trace = (): void => {
    calls++;
  };
  const kvm = Kvm.open({ ...options, trace });
  const rows = new Map<Label, string>();
  const notes: string[] = [];
  try {
    const vm = kvm.createVm();
    rows.set('NR_MEMSLOTS', String(vm.checkExtension('NR_MEMSLOTS')));
    playGuest(vm, rows, notes);
    rows.set('overlap gets', refusedSlot(vm, notes));
    vm.close();
    rows.set('kernel calls', String(calls));
    rows.set('time', `${(performance.now() - started).toFixed(1)} ms`);
  } finally {
    kvm.close();
  }
  const kernel = kvm.backend === 'native' ? `real ${shortRelease()}` : `emulated ${kvm.emulated?.release ?? ''}`;
  return { arch: kvm.arch, backend: kvm.backend, kernel, rows, notes };
}

/** `6.18.44` of `6.18.44-generic`. */
const shortRelease = (): string => release().replace(/[^\d.].*$/, '');

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
  if (kvm.backend === 'native' && kvm.arch === 'x86_64') prepareRealMode(vm);
  const vcpu = vm.createVcpu();
  const guest = loadGuest(vm, vcpu, rows, notes);
  const dirty = vm.dirtyPages.start();
  rows.set('last exit', guest.run());
  rows.set('dirty pages', pageList(dirty.collect()));
  if (seen.length > 0) rows.set('device got', seen.join(', '));
  if (gave.length > 0) rows.set('device gave', gave.join(', '));
  for (const { gpa, size, label } of RESULTS) {
    const value = size === 1 ? memory.readU8(gpa) : memory.readU32(gpa);
    rows.set(label, hex(value));
  }
  guest.after?.();
}

interface LoadedGuest {
  run(): string;
  /** Looks at what the architecture alone has, once the guest ran. */
  after?(): void;
}

/** Gives the vCPU its guest: machine code, or a program for the emulated one. */
function loadGuest(vm: Vm, vcpu: Vcpu, rows: Rows, notes: string[]): LoadedGuest {
  const { kvm } = vm;
  if (kvm.emulated === undefined) {
    if (kvm.arch !== 'x86_64') return hostStores(vm, rows, notes);
    const code = Uint8Array.from(X86_CODE.flatMap((instruction) => instruction.code));
    vm.memory.writeExact(CODE_GPA, code);
    startInRealMode(vcpu, CODE_GPA);
    rows.set('guest', `${code.length} bytes`);
    return { run: () => vcpu.runSync({ timeoutMs: 2000 }).reason };
  }
  rows.set('guest', 'scripted');
  const own = prepareOwn(vm, vcpu);
  const program = scriptedGuest((fault) => {
    rows.set('guest met', `exception ${hex(fault.code)}`);
    notes.push(`${kvm.arch} has no MMIO: the guest's store to the device met an ${fault.message}.`);
  });
  kvm.emulated.loadGuest(vcpu.fd, program);
  return {
    run: () => vcpu.runSync().reason,
    after() {
      if (own !== undefined) notes.push(...own.report());
    },
  };
}

function prepareOwn(vm: Vm, vcpu: Vcpu): Own | undefined {
  const { s390x, ppc64 } = vm.calls;
  if (s390x !== undefined) return useStorageKeys(vm, vcpu, s390x);
  if (ppc64 !== undefined) return useHashPageTable(vm, vcpu, ppc64, DEVICE_GPA);
  return undefined;
}

/** A real kernel for which there is no machine code here: this process stores what the guest would. */
function hostStores({ kvm, memory }: Vm, rows: Rows, notes: string[]): LoadedGuest {
  rows.set('guest', 'none');
  notes.push(
    `There is no machine code for ${kvm.arch} here: on the real kernel this process stores in place of a guest.`,
  );
  return {
    run() {
      memory.writeU8(0x2000, 0x41);
      memory.writeU32(0x5010, 0x1122_3344);
      return '';
    },
  };
}

/** `2 5 7 16-31`. */
function pageList(dirty: DirtyPages): string {
  const runs = dirty.runs().map(({ gfn, npages }) => (npages === 1 ? `${gfn}` : `${gfn}-${gfn + npages - 1}`));
  return runs.length === 0 ? 'none' : runs.join(' ');
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
