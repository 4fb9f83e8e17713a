import { describe, expect, it } from 'vitest';
import { type GuestFault, type GuestProgram, load, spin } from '../../../../../lib/emulated/guest.ts';
import { PROT } from '../../../../../lib/uapi/flags.ts';
import { addUnmapped, results } from './guest-machine.ts';
import { Machine, MIB, REAL64 } from './machine.ts';

const [ENOENT, EINTR, EFAULT, EINVAL, ENOTTY] = [-2, -4, -14, -22, -25];

// Measured on a real 7.2.12: whole ranges, holes, and what is half in a slot.
describe('PRE_FAULT_MEMORY', () => {
  function preFault(machine: Machine, gpa: number, size: number, flags = 0n): [result: number, ...left: number[]] {
    const range = BigUint64Array.of(BigInt(gpa), BigInt(size));
    const result = machine.kernel.preFaultMemory(machine.vcpu, range, flags);
    return [result, ...[...range].map(Number)];
  }

  it('came with 7.2', () => {
    expect(preFault(new Machine({ release: '7.1' }).addMemory(), 0, 4096)).toEqual([ENOTTY, 0, 4096]);
    expect(preFault(new Machine({ release: '7.2' }).addMemory(), 0, 4096)).toEqual([0, 4096, 0]);
  });

  it('goes as far as there is memory', () => {
    const machine = new Machine({ release: '7.2' }).addMemory();
    expect(preFault(machine, 0x1_0000, 0x1_0000)).toEqual([0, 0x2_0000, 0]);
    expect(preFault(machine, 4 * MIB, 4096)).toEqual([ENOENT, 4 * MIB, 4096]);
    expect(preFault(machine, 4 * MIB - 0x2000, 0x4000)).toEqual([0, 4 * MIB, 0x2000]);
    expect(preFault(machine, 0x800, 4096)).toEqual([EINVAL, 0x800, 4096]);
    expect(preFault(machine, 0, 4096, 1n)).toEqual([EINVAL, 0, 4096]);
  });

  it('needs pages that may be read, and makes them the guest’s', () => {
    const machine = new Machine({ release: '7.2' }).addMemory();
    machine.kernel.mprotect(machine.hva + 0x5000, 4096, PROT.NONE);
    expect(preFault(machine, 0x5000, 4096)).toEqual([EFAULT, 0x5000, 4096]);
    expect(preFault(machine, 0x3000, 0x4000)).toEqual([0, 0x5000, 0x2000]);
    machine.setKeys(3, 0, 0, 0, 0);
    // R and C are noted of pages that the guest has.
    machine.kernel.writeMemory(machine.hva + 0x3000, new Uint8Array(0x2000));
    machine.kernel.writeMemory(machine.hva + 0x6000, new Uint8Array(1));
    expect(machine.keys(3, 4)).toEqual(Uint8Array.of(6, 6, 0, 0));
  });
});

describe('a guest meets an addressing exception', () => {
  const guest = (address: number) =>
    function* (push: (value: unknown) => void): GuestProgram {
      try {
        yield load(address, 4);
      } catch (fault) {
        push([(fault as GuestFault).code, (fault as GuestFault).message]);
      }
      yield spin;
    };

  it('where there is no memory', () => {
    const { found } = results(REAL64, guest(0x5000_0000));
    expect(found).toEqual([[5, 'addressing exception at 0x50000000']]);
  });

  it('where there is none any more when it tries again', () => {
    const { machine, found } = results(REAL64, guest(4 * MIB), { before: addUnmapped });
    const { kernel, vcpu } = machine;
    expect([kernel.run(vcpu, 0), found]).toEqual([EFAULT, []]);
    expect(machine.slot(1, 0, 0, 0)).toBe(0);
    expect([kernel.run(vcpu, 0), found]).toEqual([EINTR, [[5, 'addressing exception at 0x400000']]]);
  });
});
