import { describe, expect, it } from 'vitest';
import { AddressSpace, PageFaults } from '../../../lib/index.ts';
import { PROT } from '../../../lib/raw.ts';
import { endOf, guestOf, kinds, PAGES } from './served-guest.ts';
import { UFFD_KERNELS } from './uffd-host.ts';

describe.each(UFFD_KERNELS)('$name', ({ callsOf, kvmOf }) => {
  describe.each(['anonymous', 'memfd'] as const)(
    'missing pages of %s memory, as their handler goes about it,',
    (kind) => {
      it('may be brought by a handler that reads and writes elsewhere: what it was asked for is not disturbed', (test) => {
        const calls = callsOf(test);
        const page = calls.pageSize;
        using ram = kinds[kind](calls);
        using log = kinds[kind](calls);
        using space = new AddressSpace({ littleEndian: true, pageSize: page });
        space.addRam(0, ram);
        space.addRam(PAGES * page, log);
        // It is accessed by copies from now on, as what is served is.
        log.protect(0, page, PROT.READ | PROT.WRITE);
        const elsewhere = PAGES * page + 8;
        using _faults = new PageFaults(ram, {
          missing: ({ offset }) => {
            space.writeU64(elsewhere, 0xdead_0000_0000n + BigInt(offset));
            space.readU8(elsewhere + 0x10);
            return new Uint8Array(page).fill(0x77);
          },
        });
        expect(space.readU32(page)).toBe(0x7777_7777);
        expect(space.readU64(3 * page - 4)).toBe(0x7777_7777_7777_7777n);
        space.writeU32(5 * page, 0x1122_3344);
        expect(space.readU32(5 * page)).toBe(0x1122_3344);
        space.writeU64(8 * page - 4, 0x1122_3344_5566_7788n);
        expect(space.readU64(8 * page - 4)).toBe(0x1122_3344_5566_7788n);
        expect(space.readU64(elsewhere)).toBe(0xdead_0000_0000n + BigInt(8 * page));
      });

      it('whose handler throws leave what was written before dirty', (test) => {
        const { kvm, vm, ram, page } = guestOf(kvmOf(test), test, kind, []);
        using _faults = new PageFaults(ram, {
          missing: ({ offset }) => {
            if (offset >= 3 * page) throw new Error('no page');
            return null;
          },
        });
        const dirty = vm.dirtyPages.start();
        const bytes = new Uint8Array(4 * page).fill(7);
        for (const write of [() => vm.memory.write(0, bytes), () => ram.write(0, bytes)]) {
          expect(write).toThrow('no page');
          expect(vm.memory.readU8(2 * page)).toBe(7);
          expect([...dirty.collect().pages()]).toEqual(expect.arrayContaining([0, 1, 2]));
        }
        kvm.close();
      });

      it('are brought by the methods of an object of a class, which is what they are called on', async (test) => {
        const { kvm, vm, vcpu, ram, page } = guestOf(kvmOf(test), test, kind, [3]);
        class Loader {
          readonly loaded: number[] = [];
          readonly errors: unknown[] = [];
          missing({ offset }: { readonly offset: number }): null {
            this.loaded.push(offset / page);
            if (offset === 5 * page) throw new Error('no page');
            return null;
          }
          onError(error: unknown): void {
            this.errors.push(error);
          }
        }
        const loader = new Loader();
        using faults = new PageFaults(ram, loader);
        expect(vm.memory.readU8(7 * page)).toBe(0);
        expect(await endOf(vcpu.run())).toBe('HLT');
        expect(loader.loaded).toEqual(expect.arrayContaining([7, 3]));
        expect(loader.errors).toEqual([]);
        // An access that has asked so often would ask for ever.
        expect(() => faults.bring(9 * page, false, 1001)).toThrow(
          'a handler has answered again and again for the page',
        );
        kvm.close();
      });

      it('are zeros where the handler itself ends it, and the access goes on', (test) => {
        const calls = callsOf(test);
        using ram = kinds[kind](calls);
        const faults = new PageFaults(ram, {
          missing: () => {
            faults.close();
            return null;
          },
        });
        const into = new Uint8Array(2 * calls.pageSize).fill(9);
        expect(ram.read(calls.pageSize, into)).toBe(into.length);
        expect(into.every((byte) => byte === 0)).toBe(true);
      });

      it('that are unmapped before their promise is kept are nobody’s', async (test) => {
        const { kvm, vm, vcpu, ram, page } = guestOf(kvmOf(test), test, kind, [3]);
        const errors: unknown[] = [];
        let keep: (bytes: null) => void = () => {};
        using _faults = new PageFaults(ram, {
          missing: () => new Promise<null>((resolve) => (keep = resolve)),
          onError: (error) => errors.push(error),
        });
        const ended = endOf(vcpu.run());
        await new Promise((turn) => setTimeout(turn, 50));
        ram.unmapPart(0, ram.size);
        keep(null);
        await new Promise((turn) => setTimeout(turn, 20));
        expect(errors).toEqual([]);
        vm.close();
        await ended;
        expect(page).toBe(kvm.pageSize);
      });
    },
  );
});
