import { describe, expect, it } from 'vitest';
import { load, store } from '../../../../../lib/emulated/guest.ts';
import { CAP } from '../../../../../lib/uapi/capabilities.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { EXIT, HTAB, PROT } from '../../../../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../../../../lib/uapi/structs.ts';
import { TestVm, vrma } from './vm.ts';

const [REMOVE, ENTER, READ, CLEAR_MOD, CLEAR_REF, PROTECT, BULK_REMOVE] = [4, 8, 0xc, 0x10, 0x14, 0x18, 0x124];
const [PARAMETER, PTEG_FULL, NOT_FOUND] = [-4n, -6n, -7n];
const EXACT = 0x80_0000_0000n;
const AVPN = 0x8000_0000n;
const ANDCOND = 0x4000_0000n;

const V = 0x4000_0001_2345_8001n;
const R = 0x2010n;
/** A VM whose real-mode entries don't matter: the guest only makes hypercalls. */
function vmForCalls(): TestVm {
  const vm = new TestVm({ order: 18 });
  const [slot, entry] = vrma(18, 0x5000n, 0x10n);
  vm.write(slot, [entry]);
  for (const nr of [CLEAR_REF, CLEAR_MOD]) {
    vm.ok(vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [nr, 1]));
  }
  return vm;
}

describe('H_ENTER', () => {
  it('takes the first free slot of the group', () => {
    const vm = vmForCalls();
    for (let i = 0n; i < 8n; i++) expect(vm.hcall(ENTER, 0n, 803n, V, R)).toEqual([0n, 800n + i]);
    expect(vm.hcall(ENTER, 0n, 800n, V, R)).toEqual([PTEG_FULL]);
    vm.hcall(REMOVE, 0n, 805n, 0n);
    expect(vm.hcall(ENTER, 0n, 800n, V, R)).toEqual([0n, 805n]);
  });

  it('takes exactly the slot with H_EXACT', () => {
    const vm = vmForCalls();
    expect(vm.hcall(ENTER, EXACT, 0n, V, R)).toEqual([0n, 0n]);
    expect(vm.hcall(ENTER, EXACT, 16383n, V, R)).toEqual([0n, 16383n]);
    expect(vm.hcall(ENTER, EXACT, 803n, V, R)).toEqual([0n, 803n]);
    expect(vm.hcall(ENTER, EXACT, 803n, V, R)).toEqual([PTEG_FULL]);
  });

  it('looks at the index last', () => {
    const vm = vmForCalls();
    expect(vm.hcall(ENTER, EXACT, 16384n, V, R)).toEqual([PARAMETER]);
    expect(vm.hcall(ENTER, 0n, 2n ** 64n - 1n, V, R)).toEqual([PARAMETER]);
    expect(vm.hcall(ENTER, 0n, 0n, V | (1n << 63n), R)).toEqual([PARAMETER]);
    expect(vm.hcall(ENTER, 0n, 0n, V | 4n, 0x2010n)).toEqual([PARAMETER]);
  });

  it('does not care for VALID in its argument, nor for what the hash says', () => {
    const vm = vmForCalls();
    expect(vm.hcall(ENTER, EXACT, 7n, V & ~1n, R)).toEqual([0n, 7n]);
    expect(vm.guestView(7)).toEqual([V, R]);
  });
});

describe('H_REMOVE', () => {
  it('gives back the guest’s view', () => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 7n, V, R);
    expect(vm.hcall(REMOVE, 0n, 7n, 0n)).toEqual([0n, V, R]);
    expect(vm.hcall(REMOVE, 0n, 7n, 0n)).toEqual([NOT_FOUND]);
    expect(vm.hcall(REMOVE, 0n, 16384n, 0n)).toEqual([PARAMETER]);
  });

  it('compares with H_AVPN and tests with H_ANDCOND', () => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 7n, V, R);
    expect(vm.hcall(REMOVE, AVPN, 7n, (V & ~0x7fn) + 0x80n)).toEqual([NOT_FOUND]);
    expect(vm.hcall(REMOVE, ANDCOND, 7n, 1n)).toEqual([NOT_FOUND]);
    // The lock bit is set while it is looked at.
    expect(vm.hcall(REMOVE, ANDCOND, 7n, 0x40n)).toEqual([NOT_FOUND]);
    expect(vm.hcall(REMOVE, ANDCOND, 7n, 0x10n)).toEqual([0n, V, R]);
    vm.hcall(ENTER, EXACT, 7n, V, R);
    expect(vm.hcall(REMOVE, AVPN, 7n, V & ~0x7fn)).toEqual([0n, V, R]);
  });
});

describe('H_BULK_REMOVE', () => {
  it('answers each request in its first word, R and C included', () => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 7n, V, R | 0x180n);
    vm.hcall(ENTER, EXACT, 8n, V, R | 0x100n);
    vm.hcall(ENTER, EXACT, 9n, V, R);
    const answer = vm.hcall(
      BULK_REMOVE,
      (0x40n << 56n) | 7n,
      0n,
      (0x41n << 56n) | 8n,
      0x8n,
      (0x42n << 56n) | 9n,
      0n,
      3n << 62n,
      5n,
    );
    expect(answer).toEqual([
      0n,
      (0x8cn << 56n) | 7n,
      0n,
      (0x89n << 56n) | 8n,
      8n,
      (0x92n << 56n) | 9n,
      0n,
      3n << 62n,
      5n,
    ]);
    expect(vm.guestView(9)).toEqual([V, R]);
  });

  it('takes four requests, without an end behind them', () => {
    const vm = vmForCalls();
    const slots = [7n, 8n, 9n, 10n];
    for (const slot of slots) vm.hcall(ENTER, EXACT, slot, V, R);
    const answer = vm.hcall(BULK_REMOVE, ...slots.flatMap((slot) => [(0x40n << 56n) | slot, 0n]));
    expect(answer).toEqual([0n, ...slots.flatMap((slot) => [(0x80n << 56n) | slot, 0n])]);
    expect(slots.map((slot) => vm.hcall(REMOVE, 0n, slot, 0n))).toEqual(slots.map(() => [NOT_FOUND]));
  });

  it.each([
    [0n, 0n, true],
    [1n, V & ~0x7fn, false],
    [1n, 0x20n, true],
    [2n, V & ~0x7fn, true],
    [2n, (V & ~0x7fn) + 0x80n, false],
    [2n, V, false],
  ])('with flags %i and 0x%s', (flags, word, removed) => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 7n, V, R);
    const [, answer] = vm.hcall(BULK_REMOVE, ((0x40n | flags) << 56n) | 7n, word, 3n << 62n);
    expect(answer).toBe((((removed ? 0x80n : 0x90n) | flags) << 56n) | 7n);
    expect(vm.hcall(REMOVE, 0n, 7n, 0n)[0]).toBe(removed ? NOT_FOUND : 0n);
  });

  it('stops at a bad request, with what came before done', () => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 7n, V, R);
    vm.hcall(ENTER, EXACT, 9n, V, R);
    const bad = (0x40n << 56n) | 16384n;
    expect(vm.hcall(BULK_REMOVE, (0x40n << 56n) | 7n, 0n, bad, 0n, (0x40n << 56n) | 9n, 0n, 0n, 0n)).toEqual([
      PARAMETER,
      (0x80n << 56n) | 7n,
      0n,
      (0xa0n << 56n) | 16384n,
      0n,
      (0x40n << 56n) | 9n,
      0n,
      0n,
      0n,
    ]);
    expect(vm.guestView(9)).toEqual([V, R]);
    expect(vm.hcall(BULK_REMOVE, (0x43n << 56n) | 9n, 0n)[1]).toBe((0xa3n << 56n) | 9n);
    expect(vm.hcall(BULK_REMOVE, 9n, 0n)[0]).toBe(PARAMETER);
  });
});

describe('H_PROTECT', () => {
  it('changes PP0, PP, N and key, and nothing else', () => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 7n, V, R | 0x3000_0000_0000_0f83n);
    expect(vm.hcall(PROTECT, 0x2706n, 7n, 0n)).toEqual([0n]);
    // PP0 from bit 8 of the flags, key 0b10 from bits 13:12 with 0b011 from 11:9, N and PP 2 from the lowest.
    expect(vm.guestView(7)).toEqual([V, 0xa000_0000_0000_2796n]);
    expect(vm.hcall(PROTECT, AVPN, 7n, 0n)).toEqual([NOT_FOUND]);
    expect(vm.hcall(PROTECT, AVPN, 7n, V & ~0x7fn)).toEqual([0n]);
    expect(vm.hcall(PROTECT, 0n, 6n, 0n)).toEqual([NOT_FOUND]);
    expect(vm.hcall(PROTECT, 0n, 16384n, 0n)).toEqual([PARAMETER]);
  });
});

describe('H_READ', () => {
  it('gives one entry, or the four around', () => {
    const vm = vmForCalls();
    vm.hcall(ENTER, EXACT, 6n, V, R);
    expect(vm.hcall(READ, 0n, 6n)).toEqual([0n, V, R]);
    expect(vm.hcall(READ, 0x20_0000_0000n, 7n)).toEqual([0n, 0n, 0n, 0n, 0n, V, R, 0n, 0n]);
    expect(vm.hcall(READ, 0n, 16384n)).toEqual([PARAMETER]);
  });
});

describe('H_CLEAR_REF and H_CLEAR_MOD', () => {
  it('put into the log what the processor noted, and nothing that it did not', () => {
    const vm = vmForCalls();
    const [slot, entry] = vrma(18, 0x9000n, 0x10n);
    expect(vm.hcall(ENTER, EXACT, BigInt(slot), ...entry)).toEqual([0n, BigInt(slot)]);
    vm.run(load(0x9000, 4));
    vm.hcall(CLEAR_MOD, 0n, BigInt(slot));
    expect(vm.dirty()).toEqual([]);
    vm.run(store(0x9000, 4, 1n));
    vm.hcall(CLEAR_MOD, 0n, BigInt(slot));
    vm.hcall(CLEAR_MOD, 0n, BigInt(slot));
    expect(vm.dirty()).toEqual([9]);
    expect(vm.dirty()).toEqual([]);
  });

  const [slot] = vrma(18, 0x5000n, 0x10n);

  it('put nothing into the log again that went there when the host took its page', () => {
    const vm = vmForCalls();
    vm.run(store(0x5000, 4, 1n));
    vm.ok(vm.kernel.mprotect(vm.hva + 0x5000, 4096, PROT.NONE));
    vm.run(load(0x5000, 4));
    expect([vm.exit, vm.dirty()]).toEqual([-ERRNO.EFAULT, [5]]);
    expect(vm.hcall(CLEAR_MOD, 0n, BigInt(slot))).toEqual([0n, 0x5192n]);
    expect(vm.hcall(CLEAR_REF, 0n, BigInt(slot))).toEqual([0n, 0x5112n]);
    expect(vm.dirty()).toEqual([]);
    // The real entry, which H_READ shows too, has kept them.
    expect(vm.guestView(slot)[1]).toBe(0x5192n);
    expect(vm.hcall(REMOVE, 0n, BigInt(slot), 0n)[2]).toBe(0x5012n);
    expect(vm.dirty()).toEqual([]);
  });

  it('give R as it was and clear one bit of it', () => {
    const vm = vmForCalls();
    vm.run(store(0x5000, 4, 1n));
    expect(vm.hcall(CLEAR_REF, 0n, BigInt(slot))).toEqual([0n, 0x5192n]);
    expect(vm.guestView(slot)[1]).toBe(0x5092n);
    expect(vm.hcall(CLEAR_MOD, 0n, BigInt(slot))).toEqual([0n, 0x5092n]);
    expect(vm.guestView(slot)[1]).toBe(0x5012n);
    // What the processor had noted is in the log, once.
    expect(vm.dirty()).toEqual([5]);
    expect(vm.dirty()).toEqual([]);
  });

  // Seen on real kernels: nothing else shows a guest KVM's own mark.
  it('show the mark of a change that a reader has not taken', () => {
    const vm = vmForCalls();
    vm.read(vm.reader());
    vm.hcall(ENTER, EXACT, 7n, V, R | 0x180n);
    expect(vm.hcall(CLEAR_REF, 0n, 7n)).toEqual([0n, R | 0x180n | (1n << 62n)]);
    expect(vm.hcall(READ, 0n, 7n)).toEqual([0n, V, R | 0x80n]);
  });

  it('show none where nobody reads any more', () => {
    const vm = vmForCalls();
    const shown = (slot: bigint): bigint => {
      vm.hcall(ENTER, EXACT, slot, V, R);
      return vm.hcall(CLEAR_REF, 0n, slot)[1]! >> 62n;
    };
    expect(shown(7n)).toBe(0n);
    const [one, other] = [vm.reader(), vm.reader()];
    // For writing is no reading.
    const writer = vm.reader(HTAB.WRITE);
    expect(shown(8n)).toBe(1n);
    vm.kernel.close(one);
    expect(shown(9n)).toBe(1n);
    vm.kernel.close(other);
    expect(shown(10n)).toBe(0n);
    vm.kernel.close(writer);
    expect(shown(11n)).toBe(0n);
  });

  it('go to user space until they are enabled', () => {
    const vm = new TestVm({ order: 18 });
    vm.run({ op: 'hypercall', nr: CLEAR_MOD, args: [0n, 7n] });
    expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.PAPR_HCALL]);
    const enable = (nr: number, on: number): number => vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [nr, on]);
    expect([enable(CLEAR_MOD, 2), enable(0x5, 1)]).toEqual([-ERRNO.EINVAL, -ERRNO.EINVAL]);
    expect([enable(CLEAR_MOD, 1), enable(CLEAR_MOD, 0), enable(READ, 0)]).toEqual([0, 0, 0]);
    vm.run({ op: 'hypercall', nr: READ, args: [0n, 7n] });
    expect(vm.exitReason).toBe(EXIT.PAPR_HCALL);
  });

  it('need an entry', () => {
    const vm = vmForCalls();
    for (const nr of [CLEAR_REF, CLEAR_MOD]) {
      expect(vm.hcall(nr, 0n, 16383n)).toEqual([NOT_FOUND]);
      expect(vm.hcall(nr, 0n, 16384n)).toEqual([PARAMETER]);
    }
  });
});

it('are H_FUNCTION on a radix VM, and others go to user space', () => {
  const vm = new TestVm();
  expect(vm.hcall(ENTER, 0n, 0n, V, R)).toEqual([-2n]);
  const results = vm.run({ op: 'hypercall', nr: 0x58, args: [0x1234n] });
  expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.PAPR_HCALL]);
  const { papr_hcall } = KVM_RUN;
  expect(vm.runArea.getBigUint64(papr_hcall.nr, true)).toBe(0x58n);
  expect(vm.runArea.getBigUint64(papr_hcall.args, true)).toBe(0x1234n);
  vm.runArea.setBigUint64(papr_hcall.ret, 0xabcn, true);
  vm.kernel.run(vm.vcpu, 0);
  expect(results[0]).toEqual([0xabcn, 0x1234n, 0n, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
});

it('mark what they changed for readers', () => {
  const vm = vmForCalls();
  const fd = vm.reader();
  vm.read(fd);
  vm.hcall(ENTER, EXACT, 7n, V, R);
  expect(vm.read(fd)).toMatchObject([{ index: 7 }]);
  vm.hcall(PROTECT, 3n, 7n, 0n);
  expect(vm.read(fd)).toMatchObject([{ index: 7, entries: [[V | 0x40n, R | 3n]] }]);
  vm.hcall(CLEAR_REF, 0n, 7n);
  expect(vm.read(fd)).toEqual([]);
  vm.hcall(REMOVE, 0n, 7n, 0n);
  expect(vm.read(fd)).toEqual([{ index: 7, entries: [], nInvalid: 1 }]);
});

describe('H_PAGE_INIT', () => {
  const PAGE_INIT = 0x2c;
  const [ZERO, COPY] = [0x8000n, 0x4000n];

  function pageInit(pageSize = 4096, options: ConstructorParameters<typeof TestVm>[0] = { order: 18 }) {
    const vm = new TestVm({ ...options, pageSize });
    if (options.order !== undefined) {
      const [slot, entry] = vrma(18, 0x5000n, 0x10n);
      vm.write(slot, [entry]);
    }
    vm.ok(vm.kernel.enableCap(vm.vm, CAP.PPC_ENABLE_HCALL, 0, [PAGE_INIT, 1]));
    vm.ok(vm.kernel.writeMemory(vm.hva + 0x2_0000, new Uint8Array(0x3000).fill(0x11)));
    vm.ok(vm.kernel.writeMemory(vm.hva + 0x3_0000, new Uint8Array(0x3000).fill(0x22)));
    vm.run(load(0x5000, 4));
    vm.dirty();
    const init = (flags: bigint, to: number | bigint, from: number | bigint = 0n): bigint =>
      vm.hcall(PAGE_INIT, flags, BigInt(to), BigInt(from))[0]!;
    /** What is at the beginning and the end of three pages. */
    const ends = (): number[] => {
      const bytes = new Uint8Array(0x3000);
      vm.kernel.readMemory(vm.hva + 0x2_0000, bytes);
      return [0, 0xfff, 0x1000, 0x1fff, 0x2000, 0x2fff].map((at) => bytes[at]!);
    };
    return { vm, init, ends };
  }

  it('zeroes a page, or copies one, which wins; and does nothing else without being asked', () => {
    const { vm, init, ends } = pageInit();
    expect([init(0n, 0x2_1000), vm.dirty(), ends()]).toEqual([0n, [], Array(6).fill(0x11)]);
    expect([init(ZERO, 0x2_1000), vm.dirty()]).toEqual([0n, [0x21]]);
    expect(ends()).toEqual([0x11, 0x11, 0, 0, 0x11, 0x11]);
    expect([init(ZERO | COPY, 0x2_2000, 0x3_1000), vm.dirty()]).toEqual([0n, [0x22]]);
    expect(ends()).toEqual([0x11, 0x11, 0, 0, 0x22, 0x22]);
  });

  it('means 4 KiB, whatever the host’s pages are', () => {
    const { vm, init, ends } = pageInit(65536);
    expect([init(ZERO, 0x2_1000), vm.dirty()]).toEqual([0n, [2]]);
    expect(ends()).toEqual([0x11, 0x11, 0, 0, 0x11, 0x11]);
    expect(init(COPY, 0x2_2000, 0x3_2000)).toBe(0n);
    expect(ends()).toEqual([0x11, 0x11, 0, 0, 0x22, 0x22]);
  });

  it('is there for a guest with radix as well', () => {
    const { init, ends } = pageInit(4096, {});
    expect(init(ZERO, 0x2_0000)).toBe(0n);
    expect(ends()).toEqual([0, 0, 0x11, 0x11, 0x11, 0x11]);
  });

  it('takes the flags that are hints, and no others', () => {
    const { init } = pageInit();
    const known = [0x80_0000n, 0x40_0000n, 1n << 32n, 1n << 33n, 1n << 34n, 1n << 35n, ZERO, COPY];
    for (let bit = 0n; bit < 64n; bit++) {
      const flag = 1n << bit;
      expect([bit, init(flag, 0x2_0000, 0x3_0000)]).toEqual([bit, known.includes(flag) ? 0n : PARAMETER]);
    }
  });

  it('wants whole pages, of the source only where there is one', () => {
    const { init, ends } = pageInit();
    expect([init(ZERO, 0x2_0008), init(0n, 0x2_0800), init(COPY, 0x2_0000, 0x3_0001)]).toEqual(
      Array(3).fill(PARAMETER),
    );
    expect(ends()).toEqual(Array(6).fill(0x11));
    expect(init(ZERO, 0x2_0000, 0x3_0001)).toBe(0n);
  });

  it('wants memory, which may be read and written', () => {
    const { vm, init, ends } = pageInit();
    const nowhere = 0x4000_0000;
    expect([init(ZERO, nowhere), init(COPY, nowhere, 0x3_0000), init(COPY, 0x2_0000, nowhere)]).toEqual(
      Array(3).fill(PARAMETER),
    );
    vm.ok(vm.kernel.mprotect(vm.hva + 0x2_1000, 4096, PROT.READ));
    vm.ok(vm.kernel.mprotect(vm.hva + 0x3_1000, 4096, PROT.NONE));
    expect([init(ZERO, 0x2_1000), init(COPY, 0x2_0000, 0x3_1000), init(COPY, 0x2_0000, 0x2_1000)]).toEqual([
      PARAMETER,
      PARAMETER,
      0n,
    ]);
    expect([ends(), vm.dirty()]).toEqual([Array(6).fill(0x11), [0x20]]);
  });

  it('goes to user space until it is enabled', () => {
    const vm = new TestVm({ order: 18 });
    vm.run({ op: 'hypercall', nr: PAGE_INIT, args: [ZERO, 0x2_0000n] });
    expect([vm.exit, vm.exitReason]).toEqual([0, EXIT.PAPR_HCALL]);
  });
});
