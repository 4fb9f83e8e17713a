/** After registers/vcpu-init, registers/one and registers/multiprocessing-state, which a real 7.2 answered. */

import { expect, it } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { type GuestProgram, spin } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { requestNumber } from '../../../../../lib/uapi/requests.ts';

const CORE = 0x6030_0000_0010_0000n;
/** x0 to x30, SP, PC, PSTATE, SP_EL1, ELR_EL1 and five SPSRs: two words each. */
const IDS = Array.from({ length: 41 }, (_, index) => CORE + BigInt(2 * index));
const PC = IDS[32]!;
const PREFERRED_TARGET = requestNumber('KVM_ARM_PREFERRED_TARGET', 'aarch64');
const INIT = requestNumber('KVM_ARM_VCPU_INIT', 'aarch64');

function machine() {
  const kernel = new EmulatedKernel({ arch: 'aarch64', release: '7.2' });
  const vm = kernel.createVm(kernel.openKvm(), 0);
  const vcpu = kernel.createVcpu(vm, 0);
  const get = (id: bigint): bigint | number => {
    const value = new Uint8Array(8);
    const result = kernel.getOneReg(vcpu, id, value);
    return result === 0 ? new DataView(value.buffer).getBigUint64(0, true) : result;
  };
  const init = (target: number): number => {
    const struct = new Uint8Array(32);
    struct[0] = target;
    return kernel.ioctlUnchecked(vcpu, INIT, struct);
  };
  return { kernel, vm, vcpu, get, init };
}

it('before KVM_ARM_VCPU_INIT a vCPU has no registers and runs no guest', () => {
  const { kernel, vcpu, get, init } = machine();
  expect([get(PC), kernel.setOneReg(vcpu, PC, new Uint8Array(8)), kernel.run(vcpu, 0)]).toEqual(
    Array(3).fill(-ERRNO.ENOEXEC),
  );
  expect(init(0)).toBe(-ERRNO.EINVAL);
  expect(get(PC)).toBe(-ERRNO.ENOEXEC);
  expect(init(5)).toBe(0);
  expect(get(PC)).toBe(0n);
});

it('the preferred target is the generic one, and nothing else is said of it', () => {
  const { kernel, vm } = machine();
  const struct = new Uint8Array(32).fill(0xee);
  expect(kernel.ioctlUnchecked(vm, PREFERRED_TARGET, struct)).toBe(0);
  expect(struct).toEqual(Uint8Array.of(5, ...Array<number>(31).fill(0)));
});

it('afterwards the core registers are 0 but for PSTATE: EL1h with every interrupt masked', () => {
  const { get, init } = machine();
  expect(init(5)).toBe(0);
  expect(IDS.map(get)).toEqual(IDS.map((_, index) => (index === 33 ? 0x3c5n : 0n)));
  expect(get(CORE + 2n * 41n)).toBe(-ERRNO.EINVAL);
  expect(get(CORE + 1n)).toBe(-ERRNO.EINVAL);
});

it('and once more they are so again', () => {
  const { kernel, vcpu, get, init } = machine();
  init(5);
  const value = Uint8Array.of(0, 0x10, 0, 0, 0, 0, 0, 0);
  expect(kernel.setOneReg(vcpu, PC, value)).toBe(0);
  expect(get(PC)).toBe(0x1000n);
  expect(init(5)).toBe(0);
  expect(get(PC)).toBe(0n);
});

it('a scripted guest’s vCPU counts as initialised, and keeps what was set', () => {
  const { kernel, vcpu, get, init } = machine();
  function* guest(): GuestProgram {
    yield spin;
  }
  kernel.loadGuest(vcpu, guest());
  expect([kernel.run(vcpu, 0), get(PC)]).toEqual([-ERRNO.EINTR, 0n]);
  init(5);
  kernel.setOneReg(vcpu, PC, Uint8Array.of(0, 0x10, 0, 0, 0, 0, 0, 0));
  kernel.loadGuest(vcpu, guest());
  expect(get(PC)).toBe(0x1000n);
});

it('a vCPU is runnable, stopped or suspended', () => {
  const { kernel, vcpu } = machine();
  const set = (state: number): number[] => [kernel.setMpState(vcpu, state), kernel.getMpState(vcpu)];
  // Of include/uapi/linux/kvm.h: 0 RUNNABLE, 3 HALTED, 5 STOPPED, 10 SUSPENDED.
  expect([0, 5, 10, 3, 1, 0xffff, 0].map(set)).toEqual([
    [0, 0],
    [0, 5],
    [0, 10],
    [-ERRNO.EINVAL, 10],
    [-ERRNO.EINVAL, 10],
    [-ERRNO.EINVAL, 10],
    [0, 0],
  ]);
});
