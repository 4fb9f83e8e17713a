import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { AddressSpace, EventFd, PageFaults, Reservation } from '../../../lib/index.ts';
import { ERRNO, MADV, UFFDIO_REGISTER_MODE } from '../../../lib/raw.ts';
import { loadGuest, loadStores } from '../handles/guests.ts';
import { endOf, guestOf, kinds, PAGES } from './served-guest.ts';
import { UFFD_KERNELS } from './uffd-host.ts';

const KVM_SET_USER_MEMORY_REGION = 0x4020_ae46;

/** A handler that brings pages full of their numbers, and those that it was asked for. */
function numbered(page: number) {
  const asked: number[] = [];
  const missing = ({ offset }: { offset: number }): Uint8Array => {
    asked.push(offset / page);
    return new Uint8Array(page).fill(offset / page);
  };
  return { asked, missing };
}

/** What is true a little later at most. */
async function soon(isTrue: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !isTrue(); i++) await new Promise((turn) => setTimeout(turn, 10));
  expect(isTrue()).toBe(true);
}

describe.each(UFFD_KERNELS)('$name', ({ callsOf, kvmOf, isReal }) => {
  describe.each(['anonymous', 'memfd'] as const)('missing pages of %s memory', (kind) => {
    it('are brought when this thread accesses them, in the middle of that, and once', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds[kind](calls);
      ram.write(5 * page, new Uint8Array([99]));
      using space = new AddressSpace({ littleEndian: true, pageSize: page });
      space.addRam(0, ram);
      const { asked, missing } = numbered(page);
      using faults = new PageFaults(ram, { missing });
      expect(space.readU8(7 * page + 1)).toBe(7);
      space.writeU32(9 * page - 2, 0x0403_0201);
      expect([space.readU8(8 * page), space.readU32(9 * page - 2), space.readU8(9 * page + 2)]).toEqual([
        8, 0x0403_0201, 9,
      ]);
      expect(asked).toEqual([7, 8, 9]);
      expect(space.readU8(5 * page)).toBe(99);
      expect(asked).toEqual([7, 8, 9]);
      const all = space.read(0, PAGES * page);
      expect(asked.length).toBe(PAGES - 1);
      expect([all[1 * page], all[63 * page + 5], all[9 * page]]).toEqual([1, 63, 3]);
      const pieces = new Uint8Array(2);
      ram.discard(11 * page, page);
      space.gather([10 * page, 11 * page], 1, pieces);
      expect([...pieces]).toEqual([10, 11]);
      expect(asked.length).toBe(PAGES);
      expect(inspect(faults)).toContain('serves missing, 0 pages');
    });

    it('are zeros, or copied ahead; what is there stays', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds[kind](calls);
      let asked = 0;
      using faults = new PageFaults(ram, {
        missing: () => {
          asked++;
          return null;
        },
      });
      const byte = (at: number): number => {
        const into = new Uint8Array(1);
        expect(ram.read(at, into)).toBe(1);
        return into[0]!;
      };
      expect([byte(3 * page), asked]).toEqual([0, 1]);
      expect(faults.copy(page, new Uint8Array(4 * page).fill(1))).toBe(2 * page);
      expect(faults.copy(3 * page, new Uint8Array(page).fill(1))).toBe(0);
      expect(faults.zero(4 * page, page)).toBe(page);
      expect([byte(page), byte(2 * page), byte(3 * page), byte(4 * page), asked]).toEqual([1, 1, 0, 0, 1]);
      expect(() => faults.copy(1, new Uint8Array(page))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      expect(() => faults.copy(0, new Uint8Array(1))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
      expect(() => faults.copy(PAGES * page, new Uint8Array(page))).toThrow(
        expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
      );
      expect(() => faults.protect(0, page)).toThrow(
        expect.objectContaining({ code: 'ENOENT', explanation: expect.stringContaining('no handler') }),
      );
    });

    it('are not those that a load alone brought before, by a guest or a call', async (test) => {
      const { kvm, vm, vcpu, ram, page } = guestOf(kvmOf(test), test, kind, []);
      loadGuest(kvm, vm, vcpu, [{ load: 20 * page }]);
      await vcpu.run();
      kvm.calls.readMemory(ram.hva + 30 * page + 5, new Uint8Array(1));
      const { asked, missing } = numbered(page);
      using _faults = new PageFaults(ram, { missing });
      const bytes = new Uint8Array(1);
      for (const at of [20, 21, 30, 31]) ram.read(at * page, bytes);
      expect(asked).toEqual([21, 31]);
    });

    it('that a load brings are no stores, of which a handler would be told', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds[kind](calls);
      const told: string[] = [];
      using faults = new PageFaults(ram, {
        missing: ({ offset, write }) => {
          told.push(`missing ${offset / page} ${write}`);
          return null;
        },
        store: ({ offset, write }) => {
          told.push(`store ${offset / page} ${write}`);
        },
      });
      expect(ram.read(3 * page, new Uint8Array(1))).toBe(1);
      faults.protect(3 * page, page);
      expect(ram.read(3 * page, new Uint8Array(1))).toBe(1);
      expect(told).toEqual(['missing 3 false']);
      expect(ram.write(3 * page, Uint8Array.of(1))).toBe(1);
      expect(told).toEqual(['missing 3 false', 'store 3 true']);
    });

    it("are brought for guests by the event loop, which isn't stopped meanwhile", async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, kind, [20, 22, 20]);
      const { asked, missing } = numbered(page);
      using _faults = new PageFaults(ram, {
        missing: async (fault) => {
          expect(fault.write).toBe(true);
          await new Promise((turn) => setTimeout(turn, 5));
          return missing(fault);
        },
      });
      await vcpu.run();
      expect(asked).toEqual([20, 22]);
      expect([vm.memory.readU8(20 * page), vm.memory.readU8(20 * page + 1)]).toEqual([20, 0x41]);
    });

    it('are zeros for whoever waits when it ends, and memory is as ever afterwards', async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, kind, [20]);
      let asked = 0;
      const faults = new PageFaults(ram, {
        missing: () => {
          asked++;
          return new Promise<null>(() => {});
        },
      });
      const run = vcpu.run();
      await soon(() => asked === 1);
      expect(() => vm.memory.readU8(20 * page)).toThrow(
        expect.objectContaining({ code: 'EDEADLK', explanation: expect.stringContaining('has not answered yet') }),
      );
      expect(() => vm.memory.slice(0, page)).toThrow(expect.objectContaining({ code: 'EACCES' }));
      faults.close();
      faults.close();
      await run;
      expect([vm.memory.readU8(20 * page), vm.memory.readU8(20 * page + 1)]).toEqual([0, 0x41]);
      expect(vm.memory.slice(20 * page, page)[1]).toBe(0x41);
      expect([faults.closed, ram.pins]).toEqual([true, 2]);
    });

    it('go with a part that is unmapped, and nobody waits for them', async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, kind, [20]);
      let asked = 0;
      using _faults = new PageFaults(ram, {
        missing: () => {
          asked++;
          return new Promise<null>(() => {});
        },
      });
      const run = endOf(vcpu.run());
      await soon(() => asked === 1);
      ram.unmapPart(16 * page, 16 * page);
      // A page that the host lacks; kvm_pvm, which emulates such a guest, makes an MMIO exit of it. And the kernel lets the guest go on
      // a moment before the memory goes: then it may be done.
      expect(isReal ? ['EFAULT', 'MMIO', 'HLT'] : ['EFAULT']).toContain(await run);
      expect(() => vm.memory.readU8(20 * page)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    });
  });

  describe('a handler of missing pages', () => {
    it('may throw, or give what is no page: an error of the access, and the page stays missing', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds.anonymous(calls);
      const answers: unknown[] = [];
      using faults = new PageFaults(ram, {
        missing: () => {
          const answer = answers.shift();
          if (answer instanceof Error) throw answer;
          return answer as null;
        },
      });
      const read = () => ram.read(page, new Uint8Array(1));
      answers.push(new Error('of its own'), undefined, new Uint8Array(page - 1), 7, Promise.resolve(null));
      expect(read).toThrow('of its own');
      for (const said of ['undefined', `${page - 1} bytes`, '7']) {
        expect(read).toThrow(
          expect.objectContaining({ code: 'ERR_INVALID_RETURN_VALUE', message: expect.stringContaining(said) }),
        );
      }
      expect(read).toThrow(
        expect.objectContaining({ code: 'EDEADLK', explanation: expect.stringContaining('promise') }),
      );
      expect(faults.zero(page, page)).toBe(page);
      expect(read()).toBe(1);
    });

    it('may itself access the memory, but for the page that it is asked for', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds.anonymous(calls);
      using _faults = new PageFaults(ram, {
        missing: ({ offset }) => {
          const bytes = new Uint8Array(page).fill(offset / page);
          if (offset === 0) return bytes;
          // The page before it, and that one's…
          ram.read(offset - page, bytes);
          bytes[0]!++;
          return bytes;
        },
      });
      const byte = new Uint8Array(1);
      ram.read(5 * page, byte);
      expect(byte[0]).toBe(5);
      using other = kinds.anonymous(calls);
      using _itself = new PageFaults(other, {
        missing: ({ offset }) => {
          other.read(offset, byte);
          return null;
        },
      });
      expect(() => other.read(0, byte)).toThrow(expect.objectContaining({ code: 'EDEADLK' }));
    });

    it('tells onError why its promise was rejected, and is asked again when the guest is woken', async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, 'memfd', [20]);
      const errors: string[] = [];
      let asked = 0;
      using faults = new PageFaults(ram, {
        missing: async () => {
          if (asked++ === 0) throw new Error('not yet');
          return new Uint8Array(page).fill(9);
        },
        onError: (error, { offset }) => errors.push(`${(error as Error).message} ${offset / page}`),
      });
      const run = vcpu.run();
      await soon(() => errors.length === 1);
      expect(errors).toEqual(['not yet 20']);
      faults.wake(20 * page, page);
      await run;
      expect([vm.memory.readU8(20 * page), asked]).toEqual([9, 2]);
    });

    it('tells onError what it threw for a guest, which waits on, and goes on when the page comes', async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, 'memfd', [20, 21]);
      const errors: string[] = [];
      let good = false;
      using faults = new PageFaults(ram, {
        missing: () => {
          if (!good) throw new Error('not yet');
          return new Uint8Array(page).fill(9);
        },
        onError: (error, { offset }) => errors.push(`${(error as Error).message} ${offset / page}`),
      });
      let ended = false;
      const run = vcpu.run().then(() => {
        ended = true;
      });
      await soon(() => errors.length === 1);
      expect(faults.copy(20 * page, new Uint8Array(page).fill(8))).toBe(page);
      await soon(() => errors.length === 2);
      expect([errors, ended]).toEqual([['not yet 20', 'not yet 21'], false]);
      good = true;
      faults.wake(21 * page, page);
      await run;
      expect([vm.memory.readU8(20 * page), vm.memory.readU8(21 * page)]).toEqual([8, 9]);
    });

    it('is EDEADLK for changes that the kernel makes when guests have let go of the old state, and they can be made after a pause', async (test) => {
      const { vm, vcpu, ram, page } = guestOf(kvmOf(test), test, 'memfd', [40]);
      const kvm = vm.kvm;
      using more = kvm.mapAnonymous(1 << 20);
      const doorbell = new EventFd(kvm.calls);
      const first = vm.io.ioeventfd({ addr: 0x4000_0000, len: 4, eventfd: doorbell });
      const zone = vm.io.registerCoalescedMmio(0x4000_1000, 16);
      let answer: (bytes: Uint8Array | null) => void = () => {};
      const asked: number[] = [];
      using _faults = new PageFaults(ram, {
        missing: ({ offset }) => {
          asked.push(offset / page);
          return new Promise((resolve) => {
            answer = resolve;
          });
        },
      });
      const region = (slot: number, memorySize: number) => ({
        slot,
        guestPhysAddr: 1 << 20,
        memorySize,
        userspaceAddr: more.hva,
      });
      const run = endOf(vcpu.run());
      await soon(() => asked.length > 0);
      expect(asked).toEqual([40]);
      const refused = expect.objectContaining({
        code: 'EDEADLK',
        explanation: expect.stringContaining('pause() them for changes'),
      });
      expect(() => vm.memory.addRam(1 << 20, more)).toThrow(refused);
      expect(() => vm.setUserMemoryRegion(region(7, 1 << 20))).toThrow(refused);
      expect(() => vm.ioctl(KVM_SET_USER_MEMORY_REGION, new Uint8Array(32))).toThrow(
        expect.objectContaining({ code: 'EDEADLK' }),
      );
      expect(() => vm.io.ioeventfd({ addr: 0x5000_0000, len: 4, eventfd: doorbell })).toThrow(refused);
      expect(() => vm.io.registerCoalescedMmio(0x5000_1000, 16)).toThrow(refused);
      // What could not be taken back is there still, and can be taken back later.
      for (const registration of [first, zone]) expect(() => registration.close()).toThrow(refused);
      expect([first.closed, zone.closed]).toEqual([false, false]);
      const answering = setInterval(() => answer(null), 5);
      test.onTestFinished(() => clearInterval(answering));
      await vcpu.pause();
      expect(await run).toBe('INTR');
      vm.memory.addRam(1 << 20, more).remove();
      vm.setUserMemoryRegion(region(7, 1 << 20));
      vm.setUserMemoryRegion(region(7, 0));
      for (const registration of [first, zone]) registration.close();
      vm.io.ioeventfd({ addr: 0x4000_0000, len: 4, eventfd: doorbell }).close();
    });

    it('does not keep a vCPU from being closed', async (test) => {
      const { vcpu, ram } = guestOf(kvmOf(test), test, 'anonymous', [20]);
      let asked = 0;
      const faults = new PageFaults(ram, {
        missing: () => {
          asked++;
          return new Promise<null>(() => {});
        },
      });
      const run = endOf(vcpu.run());
      await soon(() => asked === 1);
      const before = performance.now();
      // KVM that emulates the guest doesn't give up the page for a signal: then the vCPU's thread closes it later.
      vcpu.close();
      expect(performance.now() - before).toBeLessThan(5000);
      faults.close();
      expect(await run).toBe('EBADF');
    });
  });

  describe.each(['anonymous', 'memfd'] as const)('stores to protected %s memory', (kind) => {
    it('are told before they are made, once for each page, whoever makes them', async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, kind, [20, 22, 20]);
      ram.write(20 * page, new Uint8Array(3 * page).fill(5));
      const old: [page: number, before: number][] = [];
      using faults = new PageFaults(ram, {
        store: ({ offset, write }) => {
          expect(write).toBe(true);
          old.push([offset / page, vm.memory.readU8(offset + 1)]);
        },
      });
      vm.memory.writeU8(30 * page, 1);
      faults.protect();
      await vcpu.run();
      expect(old).toEqual([
        [20, 5],
        [22, 5],
      ]);
      vm.memory.writeU16(31 * page - 1, 0x0202);
      vm.memory.writeU8(31 * page, 3);
      expect(old.slice(2)).toEqual([
        [30, 0],
        [31, 0],
      ]);
      faults.unprotect(32 * page, page);
      vm.memory.writeU8(32 * page, 3);
      faults.protect(20 * page, page);
      expect(vm.memory.readU8(20 * page + 1)).toBe(0x41);
      vm.memory.writeU8(20 * page, 3);
      expect(old.slice(4)).toEqual([[20, 0x41]]);
      faults.close();
      vm.memory.writeU8(40 * page, 3);
      expect(old.length).toBe(5);
    });

    it('wait for a promise of a guest, and are EDEADLK for this thread', async (test) => {
      const { vcpu, ram, page, vm } = guestOf(kvmOf(test), test, kind, [20]);
      let release = (): void => {};
      using faults = new PageFaults(ram, {
        store: () =>
          new Promise((resolve) => {
            release = resolve;
          }),
      });
      faults.protect();
      let ended = false;
      const run = vcpu.run().then(() => {
        ended = true;
      });
      await new Promise((turn) => setTimeout(turn, 50));
      expect([ended, vm.memory.readU8(20 * page + 1)]).toEqual([false, 0]);
      expect(() => vm.memory.writeU8(20 * page, 1)).toThrow(expect.objectContaining({ code: 'EDEADLK' }));
      release();
      await run;
      expect(vm.memory.readU8(20 * page + 1)).toBe(0x41);
    });

    it('come after the page, where both are served', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds[kind](calls);
      const { asked, missing } = numbered(page);
      const stored: number[] = [];
      using faults = new PageFaults(ram, { missing, store: ({ offset }) => void stored.push(offset / page) });
      ram.write(3 * page, new Uint8Array(1));
      faults.protect(3 * page, page);
      ram.write(3 * page + 1, new Uint8Array(1));
      ram.write(4 * page + 1, new Uint8Array(1));
      expect([asked, stored]).toEqual([[3, 4], [3]]);
    });
  });

  describe('a thread that serves pages', () => {
    it('is refused what it would have to wait for itself', async (test) => {
      const { kvm, vm, vcpu, ram, page } = guestOf(kvmOf(test), test, 'anonymous', [20]);
      const { asked, missing } = numbered(page);
      const faults = new PageFaults(ram, { missing });
      expect(() => vcpu.runSync()).toThrow(
        expect.objectContaining({ code: 'EDEADLK', explanation: expect.stringContaining('serves page faults') }),
      );
      for (const advice of [MADV.POPULATE_READ, MADV.POPULATE_WRITE]) {
        expect(() => ram.advise(advice)).toThrow(expect.objectContaining({ code: 'EDEADLK' }));
      }
      // KVM_SET_MSRS: for MSR_KVM_WALL_CLOCK_NEW, say, KVM itself reads and writes the guest's memory, in this thread.
      expect(kvm.calls.ioctlUnchecked(vcpu.fd, 0x4008_ae89, new Uint8Array(24))).toBe(-ERRNO.EDEADLK);
      expect(ram.read(20 * page, new Uint8Array(0))).toBe(0);
      if (!isReal) return;
      const { cr0, cr4, efer } = vcpu.x86_64.getSregs();
      expect(() => vcpu.x86_64.setSregs({ cr0: cr0 | (1n << 31n), cr4: cr4 | 32n, efer: efer & ~0x500n })).toThrow(
        expect.objectContaining({ code: 'EDEADLK' }),
      );
      expect(vcpu.x86_64.getRegs().rip).toBe(0x1000n);
      expect(asked).toEqual([]);
      await vcpu.run();
      expect(asked).toEqual([20]);
      faults.close();
      expect(vm.memory.readU8(20 * page + 1)).toBe(0x41);
      loadStores(kvm, vm, vcpu, [21 * page]);
      vcpu.runSync();
      expect(vm.memory.readU8(21 * page)).toBe(0x41);
    });

    it('begins before slices are made, once, and for memory that it can be done for', (test) => {
      const calls = callsOf(test);
      const handlers = { missing: () => null };
      using ram = kinds.anonymous(calls);
      using space = new AddressSpace({ littleEndian: true, pageSize: calls.pageSize });
      space.addRam(0, ram);
      const slice = space.slice(0, 8);
      expect(() => new PageFaults(ram, handlers)).toThrow(
        expect.objectContaining({ code: 'EBUSY', explanation: expect.stringContaining('before slices are made') }),
      );
      slice[0] = 1;
      expect(space.readU8(0)).toBe(1);
      using other = kinds.anonymous(calls);
      using faults = new PageFaults(other, handlers);
      expect(() => new PageFaults(other, handlers)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
      expect(other.pins).toBe(1);
      faults.close();
      new PageFaults(other, handlers).close();
      using reserved = Reservation.make(calls, calls.pageSize, {});
      expect(() => new PageFaults(reserved, handlers)).toThrow(
        expect.objectContaining({
          code: 'EINVAL',
          explanation: expect.stringContaining('this mapping is reservation'),
        }),
      );
      expect(() => new PageFaults(other, {})).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
      expect(() => new PageFaults(other, { missing: 7 as never })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE', message: expect.stringContaining('handlers.missing') }),
      );
      expect(() => new PageFaults(space as never, handlers)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
      );
    });

    it('hears of pages that another mapping of the memfd took out', (test) => {
      const calls = callsOf(test);
      const page = calls.pageSize;
      using ram = kinds.memfd(calls);
      const { asked, missing } = numbered(page);
      using _faults = new PageFaults(ram, { missing });
      const hva = calls.mmap(ram.size, 3, 1, ram.fd, 0, 0, 0);
      const byte = new Uint8Array(1);
      ram.read(4 * page, byte);
      expect(calls.madvise(hva + 4 * page, page, MADV.REMOVE)).toBe(0);
      ram.read(4 * page, byte);
      expect([asked, byte[0]]).toEqual([[4, 4], 4]);
      calls.munmap(hva, ram.size);
    });

    it('is told by the calls: EAGAIN for what it would wait for, EPERM for requests that they do not know of', (test) => {
      const calls = callsOf(test);
      const uffd = calls.uffd!;
      const page = calls.pageSize;
      const hva = calls.mmap(4 * page, 3, 0x22, -1, 0, 0, 0);
      const fd = uffd.userfaultfd(0);
      expect(uffd.uffdRegister(fd, hva, page, UFFDIO_REGISTER_MODE.MISSING)).toBe(-ERRNO.EINVAL);
      expect(uffd.uffdApi(fd, new BigUint64Array(1))).toBe(-ERRNO.EFAULT);
      expect(uffd.uffdApi(fd, new BigUint64Array([1n << 63n, 0n]))).toBe(-ERRNO.EINVAL);
      const api = new BigUint64Array(2);
      expect(uffd.uffdApi(fd, api)).toBe(0);
      expect([api[0] !== 0n, api[1] !== 0n]).toEqual([true, true]);
      expect(uffd.uffdApi(fd, api)).toBe(-ERRNO.EINVAL);
      expect(uffd.uffdRegister(fd, hva, page, 8)).toBe(-ERRNO.EINVAL);
      expect(uffd.uffdRegister(fd, hva, 5 * page, 1)).toBe(-ERRNO.EINVAL);
      expect(uffd.uffdRegister(fd, hva + page, 2 * page, 1)).toBe(0);
      const bytes = new Uint8Array(page);
      expect(calls.readMemory(hva, new Uint8Array(4 * page))).toBe(page);
      expect(calls.readMemory(hva + page, bytes)).toBe(-ERRNO.EAGAIN);
      expect(calls.writeMemory(hva + page, bytes)).toBe(-ERRNO.EAGAIN);
      expect(calls.gather(new Float64Array([hva, hva + page]), new Uint32Array([1, 1]), bytes)).toBe(1);
      expect(calls.window(hva, 4 * page)).toBe(-ERRNO.EACCES);
      const other = uffd.userfaultfd(0);
      uffd.uffdApi(other, new BigUint64Array(2));
      expect(uffd.uffdRegister(other, hva + 3 * page, page, 1)).toBe(-ERRNO.EBUSY);
      expect(uffd.uffdCopy(other, hva, bytes, 0)).toBe(-ERRNO.ENOENT);
      expect(uffd.uffdCopy(fd, hva + page, bytes.fill(1), 0)).toBe(page);
      expect(uffd.uffdCopy(fd, hva + page, bytes, 0)).toBe(-ERRNO.EEXIST);
      expect(calls.readMemory(hva + page, bytes)).toBe(page);
      expect(uffd.uffdZeropage(fd, hva + 2 * page, page, 0)).toBe(page);
      expect(uffd.uffdWriteprotect(fd, hva + 2 * page, page, 1)).toBe(-ERRNO.ENOENT);
      expect(uffd.uffdWake(fd, hva, 1)).toBe(-ERRNO.EINVAL);
      expect(calls.ioctlUnchecked(fd, 0xc020_aa00, new Uint8Array(32))).toBe(-ERRNO.EPERM);
      expect(uffd.userfaultfd(2)).toBe(-ERRNO.EINVAL);
      expect(calls.close(fd)).toBe(0);
      expect(typeof calls.window(hva, 4 * page)).toBe('object');
      expect(uffd.uffdWake(fd, hva, page)).toBe(-ERRNO.EBADF);
      calls.close(other);
      calls.munmap(hva, 4 * page);
    });
  });
});
