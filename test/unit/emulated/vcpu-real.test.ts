import { expect, it } from 'vitest';
import { emulationOf } from '../../../lib/backends/emulation.ts';
import { CAP, EmulatedKernel, ERRNO, EXIT, KVM_RUN, type KvmCalls, loadNative, MAP, PROT } from '../../../lib/raw.ts';
import { KVM_SREGS_X86_64, REGS_SIZE } from '../../../lib/uapi/structs.ts';
import { emulatedGuestLoader } from '../../scenarios/guests/emulated.ts';
import { x86_64GuestLoader } from '../../scenarios/guests/x86_64.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import type { GuestLoader, ScriptOp } from '../../scenarios/scenario.ts';

const native = loadNative();
const missing = whyNoKvm(native);
const whyNot = missing ?? ('calls' in native && native.calls.arch !== 'x86_64' ? 'this is not x86_64' : undefined);
const why = whyNot === undefined ? '' : ` (${whyNot})`;

const PAGE = 4096;
const DEVICE = 0xd000_0000;

/** Loads and stores of a device and of a port, of which each leaves something for the next. */
const PROGRAM: readonly ScriptOp[] = [
  { op: 'out', port: 0x80, size: 1, value: 0x55 },
  { op: 'in', port: 0x81, size: 1, to: 0x100 },
  { op: 'store', address: DEVICE, size: 4, value: 0x1122_3344 },
  { op: 'store', address: DEVICE, size: 1, value: 0x77 },
  { op: 'out', port: 0x80, size: 4, value: 0x0102_0304 },
  { op: 'in', port: 0x81, size: 2, to: 0x100 },
  { op: 'done' },
];

/** What kvm_run has at each exit: of the data also what is behind the access's own. */
function exitsOf(calls: KvmCalls, loader: GuestLoader): unknown[] {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const hva = calls.mmap(PAGE, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
  expect(calls.setUserMemoryRegion(vm, 0, 0, 0, PAGE, hva)).toBe(0);
  const vcpu = calls.createVcpu(vm, 0);
  const size = calls.getVcpuMmapSize(kvm, 0);
  const area = calls.mmap(size, PROT.READ | PROT.WRITE, MAP.SHARED, vcpu, 0, 0, 0);
  loader.load(vm, vcpu, hva, 0, PROGRAM);
  const run = new Uint8Array(size);
  const exits: unknown[] = [];
  const part = (at: number): number[] => [...run.subarray(at, at + 8)];
  for (let reason = 0; reason !== EXIT.HLT; ) {
    expect(calls.run(vcpu, 0)).toBe(0);
    expect(calls.readMemory(area, run)).toBe(size);
    reason = new DataView(run.buffer).getUint32(KVM_RUN.exit_reason, true);
    if (reason === EXIT.MMIO) exits.push(['MMIO', part(KVM_RUN.mmio.data)]);
    else if (reason === EXIT.IO) exits.push(['IO', part(PAGE)]);
    else exits.push(reason);
    // User space's answer to IN.
    if (reason === EXIT.IO) calls.writeMemory(area + PAGE, Uint8Array.of(0x99));
  }
  for (const fd of [vcpu, vm, kvm]) calls.close(fd);
  for (const [at, length] of [
    [area, size],
    [hva, PAGE],
  ] as const)
    calls.munmap(at, length);
  return exits;
}

it.skipIf(whyNot !== undefined)(`the data of exits, and what is behind it, is as on the real kernel${why}`, () => {
  if (!('calls' in native)) throw new Error(native.reason);
  const real = exitsOf(native.calls, x86_64GuestLoader(native.calls));
  const kernel = new EmulatedKernel(emulationOf(native.calls));
  expect(exitsOf(kernel, emulatedGuestLoader(kernel))).toEqual(real);
  expect(real.slice(0, 4)).toEqual([
    ['IO', [0x55, 0, 0, 0, 0, 0, 0, 0]],
    ['IO', Array(8).fill(0)],
    ['MMIO', [0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0]],
    ['MMIO', [0x77, 0x33, 0x22, 0x11, 0, 0, 0, 0]],
  ]);
});

/** What mappings of a vCPU's pages give, and which of their pages there are. */
function mappingsOf(calls: KvmCalls): unknown[] {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const [ringPages, first] = [2, 64];
  // Before 6.1 there is the older one.
  const ring = [CAP.DIRTY_LOG_RING_ACQ_REL, CAP.DIRTY_LOG_RING].find((cap) => calls.checkExtension(vm, cap) > 0)!;
  expect(calls.enableCap(vm, ring, 0, [ringPages * PAGE])).toBe(0);
  const vcpu = calls.createVcpu(vm, 0);
  const map = (page: number, pages: number, flags: number = MAP.SHARED, prot: number = PROT.READ | PROT.WRITE) =>
    calls.mmap(pages * PAGE, prot, flags, vcpu, page * PAGE, 0, 0);
  const read = new Uint8Array(PAGE);
  const answers: unknown[] = [];
  for (const [page, pages] of [
    [0, 4],
    [2, 2],
    [3, 1],
    [first, ringPages + 1],
    [first + 1, 1],
    [first + ringPages, 1],
  ] as const) {
    const hva = map(page, pages);
    const there = Array.from({ length: pages }, (_, i) => calls.readMemory(hva + i * PAGE, read));
    answers.push([page, pages, hva > 0 ? 'mapped' : hva, ...there]);
    for (const [flags, prot] of [
      [MAP.PRIVATE, PROT.READ],
      [MAP.SHARED, PROT.READ | PROT.EXEC],
    ] as const) {
      const other = map(page, pages, flags, prot);
      answers.push(other > 0 ? 'mapped' : other);
      if (other > 0) calls.munmap(other, pages * PAGE);
    }
    calls.munmap(hva, pages * PAGE);
  }
  // The last page is in the ring.
  answers.push(map(first - 1, 2, MAP.PRIVATE));
  const [whole, second] = [map(first, ringPages), map(first + 1, 1)];
  calls.writeMemory(whole + PAGE + 8, Uint8Array.of(7));
  calls.readMemory(second, read);
  answers.push(read[8]);
  calls.munmap(whole, ringPages * PAGE);
  calls.munmap(second, PAGE);
  // What is executed, and of what: nothing that no file system has.
  const fds = [vm, calls.eventfd(0), calls.memfdCreate('code', PAGE, 0)];
  for (const fd of fds) {
    const hva = calls.mmap(PAGE, PROT.READ | PROT.EXEC, MAP.SHARED, fd, 0, 0, 0);
    answers.push(hva > 0 ? calls.munmap(hva, PAGE) : hva);
  }
  for (const fd of [vcpu, ...fds, kvm]) calls.close(fd);
  return answers;
}

it.skipIf(whyNot !== undefined)(`a vCPU's mappings have the pages that they have on the real kernel${why}`, () => {
  if (!('calls' in native)) throw new Error(native.reason);
  const real = mappingsOf(native.calls);
  expect(mappingsOf(new EmulatedKernel(emulationOf(native.calls)))).toEqual(real);
  // Where the ring is no private one, and nowhere one for code.
  expect(real.filter((answer) => answer === -ERRNO.EINVAL)).toHaveLength(3);
  expect(real.slice(-4)).toEqual([7, -ERRNO.EPERM, -ERRNO.EPERM, 0]);
});

/** What a guest loads of a page that user space wrote and of one that nobody touched, both of which may only be written. */
function loadsOf(calls: KvmCalls, loader: GuestLoader): unknown[] {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const map = (pages: number) =>
    calls.mmap(pages * PAGE, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
  const [code, data] = [map(1), map(2)];
  calls.writeMemory(data, Uint8Array.of(0x42));
  expect(calls.mprotect(data, 2 * PAGE, PROT.WRITE)).toBe(0);
  expect(calls.setUserMemoryRegion(vm, 0, 0, 0, PAGE, code)).toBe(0);
  expect(calls.setUserMemoryRegion(vm, 1, 0, 0x10_000, 2 * PAGE, data)).toBe(0);
  const vcpu = calls.createVcpu(vm, 0);
  loader.load(vm, vcpu, code, 0, [
    { op: 'copy', from: 0x10_000, to: 0x800, size: 1 },
    { op: 'copy', from: 0x11_000, to: 0x801, size: 1 },
    { op: 'done' },
  ]);
  const loaded = new Uint8Array(2).fill(9);
  const answers = [calls.run(vcpu, 0), calls.readMemory(code + 0x800, loaded), ...loaded];
  for (const fd of [vcpu, vm, kvm]) calls.close(fd);
  calls.munmap(code, PAGE);
  calls.munmap(data, 2 * PAGE);
  return answers;
}

it.skipIf(whyNot !== undefined)(`memory that may only be written is loaded as on the real kernel${why}`, () => {
  if (!('calls' in native)) throw new Error(native.reason);
  const real = loadsOf(native.calls, x86_64GuestLoader(native.calls));
  const kernel = new EmulatedKernel(emulationOf(native.calls));
  expect(loadsOf(kernel, emulatedGuestLoader(kernel))).toEqual(real);
  expect(real).toEqual([0, 2, 0x42, 0]);
});

/** What both vCPUs' mappings and one of the page by itself show of the ring of coalesced stores, while any of them is read to its end. */
function ringsOf(calls: KvmCalls, loader: GuestLoader): unknown[] {
  const ZONE = 0xd000_0000;
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const code = calls.mmap(2 * PAGE, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.ANONYMOUS, -1, 0, 0, 0);
  expect(calls.setUserMemoryRegion(vm, 0, 0, 0, 2 * PAGE, code)).toBe(0);
  expect(calls.registerCoalescedMmio(vm, ZONE, 0x100, 0)).toBe(0);
  const page = calls.checkExtension(kvm, CAP.COALESCED_MMIO);
  const size = calls.getVcpuMmapSize(kvm, 0);
  const map = (vcpu: number, offset: number, length: number): number =>
    calls.mmap(length, PROT.READ | PROT.WRITE, MAP.SHARED, vcpu, offset, 0, 0);
  const vcpu = calls.createVcpu(vm, 0);
  const [whole, alone] = [map(vcpu, 0, size), map(vcpu, page * PAGE, PAGE)];
  const rings = [whole + page * PAGE, alone];
  const fds = [vcpu];
  const answers: unknown[] = [];
  const run = (at: number, ...values: readonly number[]): void => {
    const stores = values.map((value): ScriptOp => ({ op: 'store', address: ZONE + value, size: 4, value }));
    loader.load(vm, vcpu, code + at, at, [...stores, { op: 'done' }]);
    answers.push(calls.run(vcpu, 0));
    const shown = new Uint8Array(8 + 24 * 6);
    for (const ring of rings) {
      expect(calls.readMemory(ring, shown)).toBe(shown.length);
      const words = new Uint32Array(shown.buffer);
      answers.push([words[0], words[1], ...[0, 1, 2, 3, 4, 5].map((entry) => words[2 + 6 * entry + 4])]);
    }
  };
  const take = (ring: number, entries: number): number => calls.writeMemory(ring, Uint8Array.of(entries, 0, 0, 0));
  run(0, 1, 2);
  take(rings[0]!, 1);
  run(0x400, 3);
  // One that comes later has what is there.
  take(rings[0]!, 2);
  fds.unshift(calls.createVcpu(vm, 1));
  rings.push(map(fds[0]!, 0, size) + page * PAGE);
  const first = new Uint8Array(4);
  answers.push(...rings.map((ring) => [calls.readMemory(ring, first), first[0]]));
  take(rings[1]!, 3);
  run(0x800, 4);
  take(rings[2]!, 4);
  run(0xc00, 5, 6);
  for (const fd of [...fds, vm, kvm]) calls.close(fd);
  for (const hva of [whole, rings[2]! - page * PAGE]) calls.munmap(hva, size);
  calls.munmap(alone, PAGE);
  calls.munmap(code, 2 * PAGE);
  return answers;
}

const RINGS = [
  ...[0, [0, 2, 1, 2, 0, 0, 0, 0], [0, 2, 1, 2, 0, 0, 0, 0]],
  ...[0, [1, 3, 1, 2, 3, 0, 0, 0], [1, 3, 1, 2, 3, 0, 0, 0]],
  ...Array(3).fill([4, 2]),
  ...[0, ...Array(3).fill([3, 4, 1, 2, 3, 4, 0, 0])],
  ...[0, ...Array(3).fill([4, 6, 1, 2, 3, 4, 5, 6])],
];

it('the ring of coalesced stores is behind each kvm_run, and by itself', () => {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  expect(ringsOf(kernel, emulatedGuestLoader(kernel))).toEqual(RINGS);
});

it.skipIf(whyNot !== undefined)(`so it is on the real kernel${why}`, () => {
  if (!('calls' in native)) throw new Error(native.reason);
  expect(ringsOf(native.calls, x86_64GuestLoader(native.calls))).toEqual(RINGS);
});

/** What SET_SREGS says of page tables of a 64-bit guest, at several addresses. */
function pageTablesOf(calls: KvmCalls): number[] {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const vcpu = calls.createVcpu(vm, 0);
  const sregs = new Uint8Array(REGS_SIZE.x86_64.sregs!);
  calls.getSregs(vcpu, sregs);
  const view = new DataView(sregs.buffer);
  const { cr0, cr3, cr4, efer } = KVM_SREGS_X86_64;
  view.setBigUint64(cr0, 0x8000_0011n, true);
  view.setBigUint64(cr4, 0x20n, true);
  view.setBigUint64(efer, 0x500n, true);
  const answers = [0n, 0xfffn, 1n << 35n, 1n << 36n, 1n << 61n, 1n << 63n].map((address) => {
    view.setBigUint64(cr3, address, true);
    return calls.setSregs(vcpu, sregs);
  });
  for (const fd of [vcpu, vm, kvm]) calls.close(fd);
  return answers;
}

const PAGE_TABLES = [0, 0, 0, -ERRNO.EINVAL, -ERRNO.EINVAL, -ERRNO.EINVAL];

it('page tables are within 36 bits of a vCPU without a CPUID', () => {
  expect(pageTablesOf(new EmulatedKernel({ arch: 'x86_64' }))).toEqual(PAGE_TABLES);
});

it.skipIf(whyNot !== undefined)(`so they are on the real kernel${why}`, () => {
  if (!('calls' in native)) throw new Error(native.reason);
  expect(pageTablesOf(native.calls)).toEqual(PAGE_TABLES);
});
