import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { type GuestProgram, load, spin, store } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { MAP, MEM, MP_STATE, PROT } from '../../../../../lib/uapi/flags.ts';

const PAGE = 4096;
const PAGES = 64;
const FLAGS = MAP.PRIVATE | MAP.ANONYMOUS;

/** A VM whose memory, of 64 pages, has something in every page, so that a load maps it writable. */
function machine() {
  const kernel = new EmulatedKernel({ arch: 'x86_64' });
  const vm = kernel.createVm(kernel.openKvm(), 0);
  const hva = kernel.mmap(PAGES * PAGE, PROT.READ | PROT.WRITE, FLAGS, -1, 0, PAGE, 0);
  kernel.writeMemory(hva, new Uint8Array(PAGES * PAGE).fill(1));
  const slot = (flags: number, gpa = 0): number => kernel.setUserMemoryRegion(vm, 0, flags, gpa, PAGES * PAGE, hva);
  expect(slot(MEM.LOG_DIRTY_PAGES)).toBe(0);
  const vcpu = kernel.createVcpu(vm, 0);
  /** Pages that are dirty after loads from these. */
  const dirtyAfter = (pages: readonly number[], op: (address: number) => ReturnType<typeof load>): number[] => {
    kernel.loadGuest(
      vcpu,
      (function* (): GuestProgram {
        for (const page of pages) yield op(page * PAGE);
        yield spin;
      })(),
    );
    expect(kernel.run(vcpu, 0)).toBe(-ERRNO.EINTR);
    const bitmap = new Uint8Array(PAGES / 8);
    expect(kernel.getDirtyLog(vm, 0, bitmap)).toBe(0);
    return Array.from({ length: PAGES }, (_, page) => page).filter((page) => (bitmap[page >> 3]! >> (page & 7)) & 1);
  };
  return { kernel, vm, hva, slot, dirtyAfter, loads: (address: number) => load(address, 1) };
}

// Recorded as guest-loads/first-and-again, guest-loads/host-takes-pages-away and guest-loads/slots-that-change.
describe('a page that is loaded from is dirty when it is mapped', () => {
  it('the first time, and no other', () => {
    const { dirtyAfter, loads } = machine();
    expect(dirtyAfter([3, 5], loads)).toEqual([3, 5]);
    expect(dirtyAfter([3, 4, 5], loads)).toEqual([4]);
    expect(dirtyAfter([3], (address) => store(address, 1, 2n))).toEqual([3]);
  });

  it('and again where the host has taken it away, which ends with the range', () => {
    const { kernel, hva, dirtyAfter, loads } = machine();
    const around = [3, 4, 5, 6, 7];
    expect(dirtyAfter(around, loads)).toEqual(around);
    for (const prot of [PROT.READ, PROT.READ | PROT.WRITE]) {
      expect(kernel.mprotect(hva + 4 * PAGE, 2 * PAGE, prot)).toBe(0);
    }
    expect(dirtyAfter(around, loads)).toEqual([4, 5]);
  });

  it('and again in a slot that was moved', () => {
    const { slot, dirtyAfter, loads } = machine();
    expect(dirtyAfter([3], loads)).toEqual([3]);
    expect(slot(MEM.LOG_DIRTY_PAGES, PAGES * PAGE)).toBe(0);
    expect(slot(MEM.LOG_DIRTY_PAGES)).toBe(0);
    expect(dirtyAfter([3], loads)).toEqual([3]);
  });

  it('not where nobody has written it: that is the page of zeros', () => {
    const { kernel, hva, dirtyAfter, loads } = machine();
    kernel.writeMemory(hva + 3 * PAGE, new Uint8Array(PAGE));
    kernel.writeMemory(hva + 4 * PAGE, new Uint8Array(PAGE - 1));
    expect(dirtyAfter([3, 4], loads)).toEqual([4]);
    expect(dirtyAfter([3], (address) => store(address, 1, 2n))).toEqual([3]);
  });
});

describe('an interrupt controller', () => {
  it('is made once, before any vCPU', () => {
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    const kvm = kernel.openKvm();
    const [early, late] = [kernel.createVm(kvm, 0), kernel.createVm(kvm, 0)];
    expect([kernel.createIrqchip(early), kernel.createIrqchip(early)]).toEqual([0, -ERRNO.EEXIST]);
    kernel.createVcpu(late, 0);
    expect(kernel.createIrqchip(late)).toBe(-ERRNO.EINVAL);
  });

  // Recorded as registers/fresh-with-interrupt-controller.
  it('lets vCPUs wait, of which all but the first do at first', () => {
    const { UNINITIALIZED, INIT_RECEIVED, HALTED, SIPI_RECEIVED, AP_RESET_HOLD, STOPPED, RUNNABLE } = MP_STATE;
    const states = [UNINITIALIZED, INIT_RECEIVED, HALTED, SIPI_RECEIVED, AP_RESET_HOLD, STOPPED, RUNNABLE];
    const kernel = new EmulatedKernel({ arch: 'x86_64' });
    const kvm = kernel.openKvm();
    const [without, withOne] = [kernel.createVm(kvm, 0), kernel.createVm(kvm, 0)];
    kernel.createIrqchip(withOne);
    const [first, second] = [0, 1].map((id) => kernel.createVcpu(withOne, id)) as [number, number];
    expect([first, second].map((vcpu) => kernel.getMpState(vcpu))).toEqual([RUNNABLE, UNINITIALIZED]);
    const set = (vcpu: number, state: number): number[] => [kernel.setMpState(vcpu, state), kernel.getMpState(vcpu)];
    expect(states.map((state) => set(first, state))).toEqual([
      [0, UNINITIALIZED],
      [0, INIT_RECEIVED],
      [0, HALTED],
      [0, RUNNABLE],
      [0, AP_RESET_HOLD],
      [-ERRNO.EINVAL, AP_RESET_HOLD],
      [0, RUNNABLE],
    ]);
    const alone = kernel.createVcpu(without, 1);
    expect(states.map((state) => set(alone, state))).toEqual(
      states.map((state) => [state === RUNNABLE ? 0 : -ERRNO.EINVAL, RUNNABLE]),
    );
  });
});
