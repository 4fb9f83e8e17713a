import { describe, expect, it } from 'vitest';
import { encodeHpte, type HpteFields } from '../../../../../lib/arch/ppc64/model/index.ts';
import { execute, GuestFault, type GuestOp, instruction, load, store } from '../../../../../lib/emulated/guest.ts';
import { ERRNO } from '../../../../../lib/uapi/errno.ts';
import { MAP, MEM, PROT } from '../../../../../lib/uapi/flags.ts';
import { MSR, RELOCATED, relocatedVm, TestVm, vrma } from './vm.ts';

const { ea, slot } = RELOCATED;
const PAGE = 4096;
const [IR, DR, PR] = [0x20n, 0x10n, 0x4000n];

/** lwz r3, 0(r4). */
const LWZ = Uint8Array.of(0, 0, 0x64, 0x80);
const DSISR = instruction('mfspr', 18n);
const DAR = instruction('mfspr', 19n);

/** What an operation ends in, and what it leaves in DAR and DSISR. */
function faultOf(vm: TestVm, op: GuestOp): { code: number; message: string; dar: unknown; dsisr: unknown } {
  try {
    vm.run(op);
  } catch (fault) {
    if (!(fault instanceof GuestFault)) throw fault;
    const [dsisr, dar] = vm.run(DSISR, DAR);
    return { code: fault.code, message: fault.message, dar, dsisr };
  }
  throw new Error('nothing was denied');
}

const DENY_KEY_5 = 3n << 52n;
const [ELSEWHERE, UNMAPPED] = [0x2000_0000, 0x1000_9000];
type Case = [what: string, entry: Partial<HpteFields>, op: GuestOp, code: number, dsisr: bigint, message: string];

// Power ISA 3.0, book III, 7.5: what each interrupt is for, and which bits of DSISR say why.
describe.each<Case>([
  ['a load outside of all segments', {}, load(ELSEWHERE, 4), 0x380, 0n, 'no segment for 0x20000000'],
  ['a store outside of all segments', {}, store(ELSEWHERE, 4, 0n), 0x380, 0n, 'no segment for 0x20000000'],
  ['a load without an entry', {}, load(UNMAPPED, 4), 0x300, 0x4000_0000n, 'no page table entry for 0x10009000'],
  ['a store without an entry', {}, store(UNMAPPED, 4, 0n), 0x300, 0x4200_0000n, 'no page table entry for 0x10009000'],
  ['a load that PP forbids', { pp: 0 }, load(ea, 4), 0x300, 0x0800_0000n, 'load at 0x10003010 is denied: protection'],
  [
    'a store that PP forbids',
    { pp: 3 },
    store(ea, 4, 0n),
    0x300,
    0x0a00_0000n,
    'store at 0x10003010 is denied: protection',
  ],
  [
    'a store that PP0 forbids',
    { pp: 6 },
    store(ea, 4, 0n),
    0x300,
    0x0a00_0000n,
    'store at 0x10003010 is denied: protection',
  ],
  ['a load that AMR forbids', { pp: 2, key: 5 }, load(ea, 4), 0x300, 0x20_0000n, 'load at 0x10003010 is denied: key'],
  [
    'a store that AMR forbids',
    { pp: 2, key: 5 },
    store(ea, 4, 0n),
    0x300,
    0x220_0000n,
    'store at 0x10003010 is denied: key',
  ],
])('%s', (_, entry, op, code, dsisr, message) => {
  it('makes an interrupt that DAR and DSISR tell of', () => {
    const vm = relocatedVm(entry, { msr: MSR | PR, amr: DENY_KEY_5 });
    expect(faultOf(vm, op)).toEqual({ code, message, dar: BigInt((op as { address: number }).address), dsisr });
  });
});

it.each<[what: string, entry: Partial<HpteFields>, address: number, code: number, message: string]>([
  ['outside of all segments', {}, ELSEWHERE, 0x480, 'no segment for 0x20000000'],
  ['without an entry', {}, UNMAPPED, 0x400, 'no page table entry for 0x10009000'],
  ['that N forbids', { noExecute: true }, ea, 0x400, 'fetch at 0x10003010 is denied: no-execute'],
])('a fetch %s makes an interrupt of its own, which leaves DAR and DSISR alone', (_, entry, address, code, message) => {
  const vm = relocatedVm(entry);
  expect(faultOf(vm, execute(address))).toEqual({ code, message, dar: 0n, dsisr: 0n });
});

describe('of instructions and data each is relocated by a bit of its own', () => {
  /** The instruction stands at 0x3010 in real mode and at the relocated address, and what is loaded too. */
  function codeVm(msr: bigint): TestVm {
    const vm = relocatedVm({}, { msr: MSR & ~(IR | DR) });
    const [realSlot, entry] = vrma(18, 0x3000n, 0x10n);
    vm.ok(vm.write(realSlot, [entry]));
    for (const gpa of [0x3010, 0x8010]) vm.ok(vm.kernel.writeMemory(vm.hva + gpa, LWZ));
    vm.ok(vm.kernel.writeMemory(vm.hva + 0x3018, Uint8Array.of(1)));
    vm.ok(vm.kernel.writeMemory(vm.hva + 0x8018, Uint8Array.of(2)));
    vm.setMsr((MSR & ~(IR | DR)) | msr);
    return vm;
  }
  const [real, relocated] = [0x3010, ea];

  it.each([
    ['neither', 0n, real, real, 1n],
    ['instructions', IR, relocated, real, 1n],
    ['data', DR, real, relocated, 2n],
    ['both', IR | DR, relocated, relocated, 2n],
  ])('%s', (_, msr, code, data, loaded) => {
    const vm = codeVm(msr);
    const [, registers] = vm.run(instruction('li', 4n, BigInt(data + 8)), execute(code));
    expect((registers as bigint[])[3]).toBe(loaded);
  });

  it.each([
    ['instructions', IR, real, 0x480],
    ['data', DR, relocated, 0x400],
  ])('with %s relocated there is no code where there is with the other', (_, msr, code, interrupt) => {
    expect(faultOf(codeVm(msr), execute(code)).code).toBe(interrupt);
  });
});

it('an entry that a change of its segment leaves behind is no longer found, and is again afterwards', () => {
  const vm = relocatedVm({});
  expect(vm.run(load(ea, 4))).toEqual([0n]);
  const sregs = Buffer.alloc(1232);
  vm.ok(vm.kernel.getSregs(vm.vcpu, sregs));
  const none = Buffer.from(sregs).fill(0, 16, 32);
  vm.ok(vm.kernel.setSregs(vm.vcpu, none));
  expect(faultOf(vm, load(ea, 4)).code).toBe(0x380);
  vm.ok(vm.kernel.setSregs(vm.vcpu, sregs));
  expect(vm.run(load(ea, 4))).toEqual([0n]);
});

it('memory above 4 GiB is where the entry says', () => {
  const high = 0x5_0000_3000n;
  const vm = relocatedVm({ ra: high });
  const own = vm.kernel.mmap(1 << 20, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 1 << 20, 0);
  vm.slot(1, 0x5_0000_0000, 1 << 20, MEM.LOG_DIRTY_PAGES, own);
  expect(vm.run(store(ea, 4, 0x55n), load(ea, 4))).toEqual([undefined, 0x55n]);
  const bytes = new Uint8Array(4);
  vm.kernel.readMemory(own + 0x3010, bytes);
  expect([[...bytes], vm.dirty(), vm.dirty(1)]).toEqual([[0x55, 0, 0, 0], [], [3]]);
});

it('an entry that is valid comes before one without memory, though it denies the access', () => {
  const vm = relocatedVm({ pp: 3 });
  const { v, r } = encodeHpte({ vsid: 0x1234, segmentSize: '256M', offset: 0x3000, ra: 0x4000_0000_0000 });
  vm.ok(vm.write(slot - 1, [[v, r]]));
  expect(vm.run(load(ea, 4))).toEqual([0n]);
  expect(faultOf(vm, store(ea, 4, 1n))).toMatchObject({ code: 0x300, dsisr: 0x0a00_0000n });
});

describe('pages of the host', () => {
  const PLACE = 0x8000;

  it.each(['load', 'store'] as const)('a %s needs one, and goes on where it has come back', (access) => {
    const vm = relocatedVm({});
    const op = access === 'load' ? load(ea, 4) : store(ea, 4, 0x55n);
    vm.run(op);
    expect(vm.exit).toBe(-ERRNO.EINTR);
    vm.ok(vm.kernel.mprotect(vm.hva + PLACE, PAGE, PROT.NONE));
    vm.run(op);
    expect(vm.exit).toBe(-ERRNO.EFAULT);
    vm.ok(vm.kernel.mprotect(vm.hva + PLACE, PAGE, PROT.READ | PROT.WRITE));
    vm.run(op);
    expect(vm.exit).toBe(-ERRNO.EINTR);
  });

  it('an entry for a page larger than the host’s leads nowhere', () => {
    const vm = new TestVm({ order: 18 });
    const [group] = vrma(18, 0n, 0n);
    // A page of 16 MiB in a segment of 4 KiB pages: L, and LP 0x38.
    vm.ok(vm.write(group + 1, [[0x4001_ffff_ff00_0015n, 0x3_8012n]]));
    vm.run(load(0, 4));
    expect(vm.exit).toBe(-ERRNO.EFAULT);
  });

  it('one that may only be read keeps a store from it, by an entry that was mapped for a load', () => {
    const vm = relocatedVm({});
    vm.ok(vm.kernel.mprotect(vm.hva + PLACE, PAGE, PROT.READ));
    expect(vm.run(load(ea, 4))).toEqual([0n]);
    vm.run(store(ea, 4, 1n));
    expect(vm.exit).toBe(-ERRNO.EFAULT);
    vm.ok(vm.kernel.mprotect(vm.hva + PLACE, PAGE, PROT.READ | PROT.WRITE));
    vm.run(store(ea, 4, 1n));
    expect([vm.exit, vm.dirty()]).toEqual([-ERRNO.EINTR, [8]]);
    expect(vm.guestView(slot)[1]).toBe(0x8192n);
  });
});
