import { afterEach, describe, expect, it, vi } from 'vitest';
import { S390xArchVcpu } from '../../../../../lib/arch/s390x/emulated/arch-vcpu.ts';
import { s390xArchitecture } from '../../../../../lib/arch/s390x/emulated/architecture.ts';
import { SiifIpteLock, SimpleIpteLock } from '../../../../../lib/arch/s390x/emulated/ipte-lock.ts';
import { vcpuMemOp, vmMemOp } from '../../../../../lib/arch/s390x/emulated/memop.ts';
import { S390xVm } from '../../../../../lib/arch/s390x/emulated/vm-state.ts';
import { type GuestProgram, instruction, spin } from '../../../../../lib/emulated/guest.ts';
import { EmulatedHostMemory } from '../../../../../lib/emulated/host-memory.ts';
import { PLAIN_VM } from '../../../../../lib/emulated/machine.ts';
import { EmulatedVcpu } from '../../../../../lib/emulated/vcpu.ts';
import { EmulatedVm } from '../../../../../lib/emulated/vm.ts';
import { MAP, MEMOP, MEMOP_FLAG, PROT } from '../../../../../lib/uapi/flags.ts';
import { parseRelease } from '../../../../../lib/uapi/release.ts';

const RAM = { length: 0x10_0000, prot: PROT.READ | PROT.WRITE, flags: MAP.PRIVATE | MAP.ANONYMOUS };

/** A VM with 1 MiB of memory at 0, and a vCPU of it. */
function emulated() {
  const memory = new EmulatedHostMemory(4096);
  const hva = memory.map(RAM, 0x10_0000, 0, undefined);
  const { machine } = s390xArchitecture(parseRelease('6.12'));
  const vm = new EmulatedVm(machine, memory, PLAIN_VM, (made) => new S390xVm(made));
  const vcpu = new EmulatedVcpu(vm, 0, (made) => new S390xArchVcpu(made, vm.arch));
  const slot = { slot: 0, flags: 0, gpa: 0n, size: 0x10_0000n, hva: BigInt(hva), guestMemfdOffset: 0n };
  expect(vm.setUserMemoryRegion({ ...slot, version: 1 }, () => -9)).toBe(0);
  return { memory, hva, vm, vcpu };
}

describe.each([
  ['with SIIF', SiifIpteLock],
  ['simple', SimpleIpteLock],
])('%s', (_, Lock) => {
  it('holds off invalidations while any host walks', () => {
    const lock = new Lock();
    lock.lock();
    lock.lock();
    expect(lock.tryInvalidate()).toBe(false);
    lock.unlock();
    expect(lock.tryInvalidate()).toBe(false);
    lock.unlock();
    expect(lock.tryInvalidate()).toBe(true);
    lock.invalidated();
    lock.lock();
    lock.unlock();
    expect(lock.tryInvalidate()).toBe(true);
  });

  it('is the same lock over the same memory', () => {
    const lock = new Lock();
    const other = new Lock(lock.shared);
    lock.lock();
    expect(other.tryInvalidate()).toBe(false);
    other.unlock();
    expect(lock.tryInvalidate()).toBe(true);
  });
});

describe('waits', () => {
  /** What others do while somebody sleeps: once for each sleep. */
  function whileAsleep(...others: (() => void)[]) {
    const sleeps = vi.spyOn(Atomics, 'wait').mockImplementation(() => {
      const next = others.shift();
      if (next === undefined) throw new Error('it sleeps for ever');
      next();
      return 'ok';
    });
    return sleeps;
  }
  afterEach(() => vi.restoreAllMocks());

  it('with SIIF, until no guest invalidates any more', () => {
    const lock = new SiifIpteLock();
    for (let i = 0; i < 2; i++) expect(lock.tryInvalidate()).toBe(true);
    const sleeps = whileAsleep(...Array(2).fill(() => lock.invalidated()));
    lock.lock();
    expect(sleeps).toHaveBeenCalledTimes(2);
    expect(lock.tryInvalidate()).toBe(false);
    lock.unlock();
    expect(lock.tryInvalidate()).toBe(true);
  });

  it('simple, until no guest invalidates any more; the second host does not have to', () => {
    const lock = new SimpleIpteLock();
    expect([lock.tryInvalidate(), lock.tryInvalidate()]).toEqual([true, false]);
    const sleeps = whileAsleep(
      () => {},
      () => lock.invalidated(),
    );
    lock.lock();
    lock.lock();
    expect(sleeps).toHaveBeenCalledTimes(2);
    lock.unlock();
    expect(lock.tryInvalidate()).toBe(false);
    lock.unlock();
    expect(lock.tryInvalidate()).toBe(true);
  });

  it.each(['lock', 'unlock'] as const)('simple, while another host counts itself: %s', (method) => {
    const lock = new SimpleIpteLock();
    lock.lock();
    const [HOSTS, MUTEX] = [1, 1 << 30];
    const words = new Int32Array(lock.shared);
    Atomics.or(words, HOSTS, MUTEX);
    const sleeps = whileAsleep(() => Atomics.and(words, HOSTS, ~MUTEX));
    lock[method]();
    expect(sleeps).toHaveBeenCalledTimes(1);
    expect(words[HOSTS]).toBe(method === 'lock' ? 2 : 0);
  });
});

it('with SIIF the control word is the architecture’s: k, kh, kg', () => {
  const lock = new SiifIpteLock();
  const word = () => new BigUint64Array(lock.shared)[0];
  lock.lock();
  lock.lock();
  expect(word()).toBe(0x8000_0002_0000_0000n);
  lock.unlock();
  expect(word()).toBe(0x8000_0001_0000_0000n);
  lock.unlock();
  expect(word()).toBe(0n);
  lock.tryInvalidate();
  lock.tryInvalidate();
  expect(word()).toBe(2n);
  lock.invalidated();
  expect(word()).toBe(1n);
});

describe('MEM_OP takes the interlock', () => {
  /** A VM whose lock counts, with DAT on and 1 MiB of memory whose tables are all zeros: virtual 0 is real 0. */
  function machine(asce: bigint) {
    const { vm, vcpu } = emulated();
    const cpu = vcpu.arch.state;
    cpu.cpu.cr[3] = Number(asce);
    const lock = new SiifIpteLock();
    let taken = 0;
    vm.arch.ipteLock = {
      shared: lock.shared,
      lock: () => {
        taken++;
        lock.lock();
      },
      unlock: () => lock.unlock(),
      tryInvalidate: () => lock.tryInvalidate(),
      invalidated: () => lock.invalidated(),
    };
    const mop = (dat: boolean, op: number, flags: number) => {
      cpu.cpu.pswMaskHi = dat ? 0x0400_0001 : 1;
      cpu.cpu.pswMaskLo = 0x8000_0000;
      taken = 0;
      const buf = new Uint8Array(8);
      const call = {
        op,
        gaddr: 0x10n,
        size: 8,
        flags: BigInt(flags),
        buf,
        ar: 0,
        key: 0,
        oldValue: buf,
        sidaOffset: 0,
      };
      expect(op >= MEMOP.ABSOLUTE_READ ? vmMemOp(vm.arch, call) : vcpuMemOp(vm.arch, cpu, call)).toBe(0);
      expect(lock.tryInvalidate(), 'let go').toBe(true);
      lock.invalidated();
      return taken;
    };
    return mop;
  }

  it('to move data only where tables are walked, to check always, for absolute operations never', () => {
    const walking = machine(0n);
    expect(walking(true, MEMOP.LOGICAL_READ, 0)).toBe(1);
    expect(walking(true, MEMOP.LOGICAL_WRITE, 0)).toBe(1);
    expect(walking(false, MEMOP.LOGICAL_READ, 0)).toBe(0);
    expect(machine(0x20n)(true, MEMOP.LOGICAL_READ, 0)).toBe(0);
    expect(walking(false, MEMOP.LOGICAL_READ, MEMOP_FLAG.CHECK_ONLY)).toBe(1);
    expect(walking(true, MEMOP.LOGICAL_WRITE, MEMOP_FLAG.CHECK_ONLY)).toBe(1);
    expect(walking(true, MEMOP.ABSOLUTE_READ, 0)).toBe(0);
    expect(walking(true, MEMOP.ABSOLUTE_CMPXCHG, 0)).toBe(0);
  });
});

it('defers a guest’s invalidation while a walk is under way, and no other instruction', () => {
  const { memory, hva, vm, vcpu } = emulated();
  const lock = new SiifIpteLock();
  vm.arch.ipteLock = lock;
  const done: string[] = [];
  vcpu.load(
    (function* (): GuestProgram {
      yield instruction('SSKE', 0x10n, 0n);
      done.push('SSKE');
      yield instruction('IPTE', 0x8000n, 0x3000n);
      done.push('IPTE');
      yield spin;
    })(),
  );
  const entry = () => {
    const bytes = new Uint8Array(8);
    memory.read(hva + 0x8018, bytes);
    return bytes[6];
  };
  lock.lock();
  expect(vcpu.run(5)).toBe(-4);
  expect([done, entry()]).toEqual([['SSKE'], 0]);
  lock.unlock();
  expect(vcpu.run(5)).toBe(-4);
  expect([done, entry()]).toEqual([['SSKE', 'IPTE'], 4]);
  // The interlock is free again: nobody is counted.
  expect(new BigUint64Array(lock.shared)[0]).toBe(0n);
  expect(lock.tryInvalidate()).toBe(true);
});
