/** After registers/one and registers/multiprocessing-state, which a real 7.2 answered. */

import { beforeEach, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../../../lib/backends/emulated.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';

/** The program counter, x1 to x31, and the mode. */
const IDS = Array.from({ length: 33 }, (_, index) => 0x8030_0000_0200_0000n + BigInt(index));
/** Of include/uapi/linux/kvm.h. */
const [RUNNABLE, HALTED, STOPPED] = [0, 3, 5];

let kernel: EmulatedKernel;
let vm: number;
let vcpu: number;
beforeEach(() => {
  kernel = new EmulatedKernel({ arch: 'riscv64', release: '7.2' });
  vm = kernel.createVm(kernel.openKvm(), 0);
  vcpu = kernel.createVcpu(vm, 0);
});

it('the core registers of a new vCPU are 0, in supervisor mode', () => {
  const get = (id: bigint): bigint | number => {
    const value = new Uint8Array(8);
    const result = kernel.getOneReg(vcpu, id, value);
    return result === 0 ? new DataView(value.buffer).getBigUint64(0, true) : result;
  };
  expect(IDS.map(get)).toEqual(IDS.map((_, index) => (index === 32 ? 1n : 0n)));
  expect(get(IDS[32]! + 1n)).toBe(-ERRNO.ENOENT);
});

it('the first vCPU runs, all others are stopped at first', () => {
  expect(kernel.getMpState(vcpu)).toBe(RUNNABLE);
  expect([1, 7].map((id) => kernel.getMpState(kernel.createVcpu(vm, id)))).toEqual([STOPPED, STOPPED]);
});

it('is runnable or stopped', () => {
  const set = (state: number): number[] => [kernel.setMpState(vcpu, state), kernel.getMpState(vcpu)];
  expect([STOPPED, HALTED, 0xffff, RUNNABLE, STOPPED, RUNNABLE].map(set)).toEqual([
    [0, STOPPED],
    [-ERRNO.EINVAL, STOPPED],
    [-ERRNO.EINVAL, STOPPED],
    [0, RUNNABLE],
    [0, STOPPED],
    [0, RUNNABLE],
  ]);
});
