import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type GuestCode, type GuestOp, type GuestProgram, outs, spin, store } from '../../../lib/emulated/guest.ts';
import { ERRNO, MAP, PROT } from '../../../lib/raw.ts';
import { MEM, MEMORY_ATTRIBUTE_PRIVATE, VM_TYPE } from '../../../lib/uapi/flags.ts';
import { requestNumber } from '../../../lib/uapi/requests.ts';
import {
  UFFD_FEATURE,
  UFFD_MSG,
  UFFD_PAGEFAULT_FLAG,
  UFFDIO_COPY_MODE,
  UFFDIO_REGISTER_MODE,
} from '../../../lib/uapi/userfaultfd.ts';
import { fd, HUGE, kernel, makeKernels, map, open, PAGE, RW, uffd, useKernel } from './uffd-kernel.ts';

const { MISSING, MINOR, WP } = UFFDIO_REGISTER_MODE;
const { EDEADLK, EFAULT } = ERRNO;

makeKernels();

describe('a range that is registered', () => {
  it('belongs to one userfaultfd, and what is before and behind it to nobody', () => {
    const hva = map(4 * PAGE);
    const [mine, other] = [fd, open()];
    expect(uffd.uffdRegister(mine, hva + PAGE, 2 * PAGE, WP)).toBe(0);
    // Who waits for one mapping waits for one userfaultfd; another mapping is another's.
    expect(uffd.uffdRegister(other, hva + PAGE, PAGE, WP)).toBe(-ERRNO.EBUSY);
    const elsewhere = map(4 * PAGE);
    expect(elsewhere).toBeGreaterThan(hva);
    expect(uffd.uffdRegister(other, elsewhere, 4 * PAGE, WP)).toBe(0);
    expect(uffd.uffdRegister(mine, hva, PAGE, MISSING)).toBe(0);
    expect(uffd.uffdUnregister(mine, hva, 4 * PAGE)).toBe(0);
    expect(uffd.uffdRegister(other, hva, 4 * PAGE, WP)).toBe(0);
  });
});

it('ranges whose stores nobody waits for are each of whom they were registered by', () => {
  const hva = map(4 * PAGE);
  const [mine, other] = [0, 1].map(() => {
    const opened = uffd.userfaultfd(0);
    expect(uffd.uffdApi(opened, BigUint64Array.of(BigInt(UFFD_FEATURE.WP_ASYNC), 0n))).toBe(0);
    return opened;
  });
  expect(uffd.uffdRegister(mine!, hva + 2 * PAGE, PAGE, WP)).toBe(0);
  expect(uffd.uffdRegister(other!, hva + 2 * PAGE, PAGE, WP)).toBe(-ERRNO.EBUSY);
  expect(uffd.uffdRegister(other!, hva + PAGE, 2 * PAGE, WP)).toBe(-ERRNO.EBUSY);
  expect(uffd.uffdRegister(other!, hva, 2 * PAGE, WP)).toBe(0);
  expect(uffd.uffdRegister(other!, hva + 3 * PAGE, PAGE, WP)).toBe(0);
});

it('what was unmapped of a mapping stays reserved: private memory, whatever was there', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
  try {
    const path = join(folder, 'file');
    writeFileSync(path, Buffer.alloc(4 * PAGE));
    const file = openSync(path, 'r+');
    const hva = kernel.mmap(4 * PAGE, RW, MAP.SHARED, file, 0, 0, 0);
    closeSync(file);
    expect(kernel.munmap(hva + PAGE, PAGE)).toBe(0);
    expect(uffd.uffdRegister(fd, hva, PAGE, MISSING)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdRegister(fd, hva + PAGE, PAGE, MINOR)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdRegister(fd, hva + PAGE, PAGE, MISSING)).toBe(0);
    expect(uffd.uffdRegister(fd, hva + PAGE, 2 * PAGE, MISSING)).toBe(-ERRNO.EINVAL);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('a page that is brought', () => {
  it('is one that is registered and missing', () => {
    const hva = map(4 * PAGE);
    expect(uffd.uffdRegister(fd, hva, 2 * PAGE, MISSING)).toBe(0);
    const bytes = new Uint8Array(PAGE).fill(7);
    expect(uffd.uffdCopy(fd, hva, bytes, 0)).toBe(PAGE);
    expect(uffd.uffdCopy(fd, hva, bytes, 0)).toBe(-ERRNO.EEXIST);
    expect(uffd.uffdZeropage(fd, hva, PAGE, 0)).toBe(-ERRNO.EEXIST);
    expect(uffd.uffdZeropage(fd, hva + PAGE, PAGE, 0)).toBe(PAGE);
    expect(uffd.uffdCopy(fd, hva + 2 * PAGE, bytes, 0)).toBe(-ERRNO.ENOENT);
    expect(uffd.uffdCopy(fd, hva + 8, bytes, 0)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdCopy(fd, hva + PAGE, bytes.subarray(1), 0)).toBe(-ERRNO.EINVAL);
    // Protected only where that was registered.
    expect(uffd.uffdCopy(fd, hva + PAGE, bytes, UFFDIO_COPY_MODE.WP)).toBe(-ERRNO.EINVAL);
    const back = new Uint8Array(2 * PAGE);
    expect(kernel.readMemory(hva, back)).toBe(2 * PAGE);
    expect([back[0], back[PAGE - 1], back[PAGE]]).toEqual([7, 7, 0]);
  });

  it('is there already where somebody wrote to it through a view', () => {
    const hva = map(4 * PAGE);
    const window = kernel.window(hva, 4 * PAGE) as ArrayBuffer;
    new Uint8Array(window)[PAGE + 5] = 1;
    expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING)).toBe(0);
    expect(uffd.uffdZeropage(fd, hva + PAGE, PAGE, 0)).toBe(-ERRNO.EEXIST);
    expect(uffd.uffdZeropage(fd, hva + 2 * PAGE, PAGE, 0)).toBe(PAGE);
  });

  it('may be protected at once: that page, and until it is written', () => {
    const hva = map(4 * PAGE);
    expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING | WP)).toBe(0);
    const bytes = new Uint8Array(PAGE).fill(3);
    expect(uffd.uffdCopy(fd, hva + PAGE, bytes, UFFDIO_COPY_MODE.WP)).toBe(PAGE);
    expect(uffd.uffdCopy(fd, hva + 2 * PAGE, bytes, 0)).toBe(PAGE);
    const one = Uint8Array.of(9);
    for (const at of [0, 8, PAGE - 1]) expect(kernel.writeMemory(hva + PAGE + at, one)).toBeLessThan(1);
    expect(kernel.writeMemory(hva + 2 * PAGE, one)).toBe(1);
    expect(uffd.uffdWriteprotect(fd, hva + PAGE, PAGE, 0)).toBe(0);
    expect(kernel.writeMemory(hva + PAGE + 8, one)).toBe(1);
  });

  it('ends at the first that is there: the bytes before it are told', () => {
    const hva = map(4 * PAGE);
    expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING)).toBe(0);
    expect(uffd.uffdZeropage(fd, hva + 2 * PAGE, PAGE, 0)).toBe(PAGE);
    expect(uffd.uffdCopy(fd, hva, new Uint8Array(4 * PAGE), 0)).toBe(2 * PAGE);
  });

  it('is a whole one where pages are huge, and never one of zeros', () => {
    const hva = map(2 * HUGE, MAP.HUGETLB);
    expect(hva % HUGE).toBe(0);
    expect(uffd.uffdRegister(fd, hva, 2 * HUGE, MISSING)).toBe(0);
    expect(uffd.uffdCopy(fd, hva, new Uint8Array(PAGE), 0)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdCopy(fd, hva + PAGE, new Uint8Array(HUGE), 0)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdZeropage(fd, hva, HUGE, 0)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdCopy(fd, hva, new Uint8Array(HUGE).fill(1), 0)).toBe(HUGE);
    expect(uffd.uffdCopy(fd, hva, new Uint8Array(HUGE), 0)).toBe(-ERRNO.EEXIST);
  });
});

it('a guest that waits for a page, wherever in it, goes on when that page is there, and no other', async () => {
  const vm = kernel.createVm(kernel.openKvm(), 0);
  const hva = map(4 * PAGE);
  expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 4 * PAGE, hva)).toBe(0);
  const vcpu = kernel.createVcpu(vm, 0);
  const done: string[] = [];
  kernel.loadGuest(
    vcpu,
    (function* () {
      yield store(PAGE + 0x808, 4, 0x1234n);
      done.push('stored');
      // Where no memory is, nobody waits.
      yield store(16 * PAGE, 4, 1n);
    })(),
  );
  expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING)).toBe(0);
  const run = kernel.runAsync(vcpu);
  await setTimeout(5);
  expect(uffd.uffdZeropage(fd, hva + 2 * PAGE, PAGE, 0)).toBe(PAGE);
  await setTimeout(5);
  expect(done).toEqual([]);
  expect(uffd.uffdZeropage(fd, hva + PAGE, PAGE, 0)).toBe(PAGE);
  expect(await Promise.race([run, setTimeout(5000, 'never')])).toBe(0);
  expect(done).toEqual(['stored']);
});

describe('a guest', () => {
  /** What is told of a fault: its address, and whether it is a store's. */
  const told = (): unknown[] => {
    const message = new DataView(new ArrayBuffer(UFFD_MSG.structSize));
    const { flags, address } = UFFD_MSG.pagefault;
    if (kernel.read(fd, new Uint8Array(message.buffer)) !== UFFD_MSG.structSize) return [];
    const isStore = message.getBigUint64(flags, true) === BigInt(UFFD_PAGEFAULT_FLAG.WRITE);
    return [Number(message.getBigUint64(address, true)), isStore];
  };
  const executing = function* (...ops: readonly GuestOp[]): GuestProgram {
    yield* ops;
  };
  /** One that executes operations, in a VM with 4 pages. */
  const guestOf = (program: readonly GuestOp[], code?: GuestCode, type = 0) => {
    const vm = kernel.createVm(kernel.openKvm(), type);
    const hva = map(4 * PAGE);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 4 * PAGE, hva)).toBe(0);
    const vcpu = kernel.createVcpu(vm, 0);
    kernel.loadGuest(vcpu, executing(...program), code);
    return { vm, hva, vcpu };
  };
  const turns = async (): Promise<void> => {
    for (let turn = 0; turn < 3; turn++) await new Promise((turned) => setImmediate(turned));
  };
  const bring = (hva: number): number => uffd.uffdZeropage(fd, hva, PAGE, 0);

  it('stores nothing to a page while it waits for the next one', async () => {
    const { hva, vcpu } = guestOf([store(2 * PAGE - 2, 4, 0x0403_0201n)]);
    expect(uffd.uffdRegister(fd, hva + 2 * PAGE, PAGE, MISSING)).toBe(0);
    const run = kernel.runAsync(vcpu);
    await turns();
    const bytes = new Uint8Array(4);
    expect([kernel.readMemory(hva + 2 * PAGE - 2, bytes), ...bytes.subarray(0, 2)]).toEqual([2, 0, 0]);
    expect([told(), told()]).toEqual([[hva + 2 * PAGE, true], []]);
    expect([bring(hva + 2 * PAGE), await run]).toEqual([PAGE, 0]);
    expect([kernel.readMemory(hva + 2 * PAGE - 2, bytes), ...bytes]).toEqual([4, 1, 2, 3, 4]);
  });

  it('waits for its code, and executes nothing until it is there', async () => {
    const { hva, vcpu } = guestOf([store(8, 1, 7n)], { gpa: 2 * PAGE + 8, size: 16 });
    expect(uffd.uffdRegister(fd, hva + 2 * PAGE, PAGE, MISSING)).toBe(0);
    const run = kernel.runAsync(vcpu);
    await turns();
    const byte = new Uint8Array(1);
    expect([told(), kernel.readMemory(hva + 8, byte), byte[0]]).toEqual([[hva + 2 * PAGE, false], 1, 0]);
    expect([bring(hva + 2 * PAGE), await run, kernel.readMemory(hva + 8, byte), byte[0]]).toEqual([PAGE, 0, 1, 7]);
  });

  it('waits for no page of user space’s where its code is private', async () => {
    useKernel({ arch: 'x86_64', x86_64: { swProtectedVm: true } });
    const { vm, hva, vcpu } = guestOf([store(8, 1, 7n)], { gpa: 2 * PAGE + 8, size: 16 }, VM_TYPE.X86_SW_PROTECTED);
    const memfd = kernel.createGuestMemfd(vm, 4 * PAGE, 0);
    expect(kernel.setUserMemoryRegion(vm, 0, 0, 0, 0, hva)).toBe(0);
    expect(kernel.setUserMemoryRegion2(vm, 0, MEM.GUEST_MEMFD, 0, 4 * PAGE, hva, memfd, 0)).toBe(0);
    expect(kernel.setMemoryAttributes(vm, 2 * PAGE, PAGE, MEMORY_ATTRIBUTE_PRIVATE, 0)).toBe(0);
    expect(uffd.uffdRegister(fd, hva + 2 * PAGE, PAGE, MISSING)).toBe(0);
    const byte = new Uint8Array(1);
    expect([await kernel.runAsync(vcpu), told(), kernel.readMemory(hva + 8, byte), byte[0]]).toEqual([0, [], 1, 7]);
  });

  it('waits for no page that it may not access', async () => {
    const { hva, vcpu } = guestOf([store(PAGE, 1, 7n)]);
    expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING)).toBe(0);
    expect(kernel.mprotect(hva + PAGE, PAGE, PROT.READ)).toBe(0);
    expect([await kernel.runAsync(vcpu), told()]).toEqual([-EFAULT, []]);
  });

  it('waits for no page of user space’s where it has a private one', async () => {
    useKernel({ arch: 'x86_64', x86_64: { swProtectedVm: true } });
    const { vm, hva, vcpu } = guestOf([store(PAGE, 1, 7n)], undefined, VM_TYPE.X86_SW_PROTECTED);
    expect(uffd.uffdRegister(fd, hva, 4 * PAGE, MISSING)).toBe(0);
    expect(kernel.setMemoryAttributes(vm, PAGE, PAGE, MEMORY_ATTRIBUTE_PRIVATE, 0)).toBe(0);
    expect([await kernel.runAsync(vcpu), told()]).toEqual([-EFAULT, []]);
    // KVM itself moves a string, between ports and user space's memory.
    kernel.loadGuest(vcpu, executing(outs(1, 1, PAGE, 1)));
    const run = kernel.runAsync(vcpu);
    await turns();
    expect([told(), bring(hva + PAGE), await run]).toEqual([[hva + PAGE, false], PAGE, 0]);
  });
});

describe('this thread', () => {
  it('changes no slots of a VM whose guest runs and may wait for a page of its own', async () => {
    const vm = kernel.createVm(kernel.openKvm(), 0);
    const [served, plain] = [map(PAGE), map(PAGE)];
    const slot = (of: number, at: number, gpa: number): number =>
      kernel.setUserMemoryRegion(of, at, 0, gpa, PAGE, at === 0 ? served : plain);
    expect(slot(vm, 0, 0)).toBe(0);
    const vcpu = kernel.createVcpu(vm, 0);
    // One that doesn't run is no matter.
    expect(kernel.createVcpu(vm, 1)).toBeGreaterThan(0);
    kernel.loadGuest(
      vcpu,
      (function* () {
        yield spin;
      })(),
    );
    expect(uffd.uffdRegister(fd, served, PAGE, MISSING)).toBe(0);
    // No guest runs: nobody waits.
    expect(slot(vm, 1, PAGE)).toBe(0);
    const running = kernel.runAsync(vcpu);
    expect(slot(vm, 2, 2 * PAGE)).toBe(-ERRNO.EDEADLK);
    for (const name of ['KVM_SET_USER_MEMORY_REGION', 'KVM_SET_USER_MEMORY_REGION2'] as const)
      expect(
        [new Uint8Array(160), new Uint8Array(8), 0].map((arg) =>
          kernel.ioctlUnchecked(vm, requestNumber(name, 'x86_64'), arg),
        ),
        name,
        // What is no structure is the kernel's to refuse.
      ).toEqual([-EDEADLK, -EFAULT, -EFAULT]);
    // A VM whose guest has none of the memory that is served.
    const apart = kernel.createVm(kernel.openKvm(), 0);
    expect(slot(apart, 1, PAGE)).toBe(0);
    const alone = kernel.createVcpu(apart, 0);
    kernel.loadGuest(
      alone,
      (function* () {
        yield spin;
      })(),
    );
    const spinning = kernel.runAsync(alone);
    expect(slot(apart, 2, 2 * PAGE)).toBe(0);
    kernel.kick(alone);
    await spinning;
    // Another VM, whose guest doesn't run.
    const other = kernel.createVm(kernel.openKvm(), 0);
    expect(slot(other, 1, 0)).toBe(0);
    kernel.kick(vcpu);
    expect(await running).toBe(-ERRNO.EINTR);
    expect(slot(vm, 2, 2 * PAGE)).toBe(0);
  });
});

describe('protection', () => {
  it('is of whole pages, which may be huge', () => {
    const hva = map(2 * HUGE, MAP.HUGETLB);
    expect(uffd.uffdRegister(fd, hva, 2 * HUGE, WP)).toBe(0);
    expect(uffd.uffdWriteprotect(fd, hva, PAGE, 1)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdWriteprotect(fd, hva + PAGE, HUGE, 1)).toBe(-ERRNO.EINVAL);
    expect(uffd.uffdWriteprotect(fd, hva, HUGE, 1)).toBe(0);
  });

  it('that somebody may have to wait for is none of memory that was handed out', () => {
    const waiting = map(PAGE);
    expect(kernel.view(waiting, PAGE)).toBeInstanceOf(ArrayBuffer);
    expect(uffd.uffdRegister(fd, waiting, PAGE, WP)).toBe(-ERRNO.EBUSY);
    const tracking = uffd.userfaultfd(0);
    expect(uffd.uffdApi(tracking, BigUint64Array.of(BigInt(UFFD_FEATURE.WP_ASYNC), 0n))).toBe(0);
    expect(uffd.uffdRegister(tracking, waiting, PAGE, WP)).toBe(0);
  });

  it('is asked for which pages were written, and no other category', () => {
    const hva = map(PAGE);
    const scan = (inverted: number, mask: number, anyOf: number): number =>
      uffd.pagemapScan(hva, PAGE, 0, inverted, mask, anyOf, new Uint8Array(1));
    expect(scan(0, 2, 0)).toBe(1);
    for (const [inverted, mask, anyOf] of [
      [0, 1, 0],
      [0, 3, 0],
      [0, 0, 0],
      [2, 2, 0],
      [0, 2, 2],
    ] as const)
      expect(scan(inverted, mask, anyOf)).toBe(-ERRNO.EINVAL);
  });
});
