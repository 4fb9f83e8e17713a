import { describe, expect, it } from 'vitest';
import { x86_64Architecture } from '../../../lib/arch/x86_64/emulated/architecture.ts';
import * as operation from '../../../lib/emulated/guest.ts';
import { EmulatedHostMemory } from '../../../lib/emulated/host-memory.ts';
import { EmulatedVcpu } from '../../../lib/emulated/vcpu.ts';
import { EmulatedVm } from '../../../lib/emulated/vm.ts';
import { EmulatedKernel, type EmulatedKernelOptions, ERRNO, MAP, PROT } from '../../../lib/raw.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { EXIT, MEM, MEMORY_EXIT_FLAG } from '../../../lib/uapi/flags.ts';
import { parseRelease } from '../../../lib/uapi/release.ts';
import { UFFDIO_REGISTER_MODE } from '../../../lib/uapi/userfaultfd.ts';

const { execute, GuestFault, ins, instruction, outs, spin, store, update } = operation;
type GuestOp = operation.GuestOp;
type GuestProgram = operation.GuestProgram;

describe('kvm_run and what a run leaves in it', () => {
  const PAGE = 4096;
  const RW = PROT.READ | PROT.WRITE;
  const { EFAULT, EINTR, EINVAL, EPERM } = ERRNO;

  /** A vCPU by its calls, with the pages of kvm_run. */
  const machine = (options: Partial<EmulatedKernelOptions> = {}, type = 0) => {
    const calls = new EmulatedKernel({ arch: 'x86_64', ...options });
    const fd = calls.createVm(calls.openKvm(), type);
    const cpu = calls.createVcpu(fd, 0);
    const size = calls.getVcpuMmapSize(calls.openKvm(), 0);
    const run = new DataView(calls.window(calls.mmap(size, RW, MAP.SHARED, cpu, 0, 0, 0), size) as ArrayBuffer);
    const map = (pages: number): number => calls.mmap(pages * PAGE, RW, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0, 0);
    const slot = (id: number, gpa: number, pages: number, hva: number, flags = 0): void =>
      expect(calls.setUserMemoryRegion(fd, id, flags, gpa, pages * PAGE, hva)).toBe(0);
    /** What the program was given for each of its operations, or threw. */
    const results: unknown[] = [];
    const load = (ops: Iterable<GuestOp>, code?: { gpa: number; size: number }): void => {
      results.length = 0;
      const guest = function* (): GuestProgram {
        for (const op of ops) {
          try {
            results.push(yield op);
          } catch (fault) {
            results.push(fault);
          }
        }
      };
      calls.loadGuest(cpu, guest(), code);
    };
    const exit = (): number => run.getUint32(8, true);
    const get = (hva: number, length: number): number[] => {
      const into = new Uint8Array(length);
      expect(calls.readMemory(hva, into)).toBe(length);
      return [...into];
    };
    return { calls, fd, cpu, run, map, slot, load, results, exit, get };
  };
  const MMIO_AT = 0xd000_0000;

  it('is an access to a device, with as many bytes as it has', () => {
    const { calls, cpu, run, load, results, exit } = machine();
    run.setBigUint64(40, ~0n, true);
    load([store(MMIO_AT + 3, 2, 0x1234n), operation.load(MMIO_AT + 8, 4)]);
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.MMIO]);
    const described = () => [
      run.getBigUint64(32, true),
      run.getBigUint64(40, true),
      run.getUint32(48, true),
      run.getUint8(52),
    ];
    // KVM copies those bytes, and leaves the others.
    expect(described()).toEqual([BigInt(MMIO_AT + 3), 0xffff_ffff_ffff_1234n, 2, 1]);
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.MMIO]);
    expect(described()).toEqual([BigInt(MMIO_AT + 8), 0xffff_ffff_ffff_1234n, 4, 0]);
    run.setBigUint64(40, 0xffff_ffff_0102_0304n, true);
    expect([calls.run(cpu, 0), exit(), results]).toEqual([0, EXIT.HLT, [undefined, 0x0102_0304n]]);
  });

  it('is an access to a port, whose bytes are in the second page', () => {
    const { calls, cpu, run, load, results, exit } = machine();
    load([operation.out(0x3f8, 2, 0xabcdn), operation.input(0x60, 1), ins(0x1f0, 4, 0, 0)]);
    const described = () => [run.getUint8(32), run.getUint8(33), run.getUint16(34, true), run.getUint32(36, true)];
    expect([calls.run(cpu, 0), exit(), described(), run.getBigUint64(40, true)]).toEqual([
      0,
      EXIT.IO,
      [1, 2, 0x3f8, 1],
      BigInt(PAGE),
    ]);
    expect(run.getUint16(PAGE, true)).toBe(0xabcd);
    expect([calls.run(cpu, 0), exit(), described()]).toEqual([0, EXIT.IO, [0, 1, 0x60, 1]]);
    // What was there before isn't read where user space says nothing.
    expect(run.getUint16(PAGE, true)).toBe(0xab00);
    run.setUint8(PAGE, 0x5a);
    // A string of no units is nothing.
    expect([calls.run(cpu, 0), exit(), results]).toEqual([0, EXIT.HLT, [undefined, 0x5an, undefined]]);
  });

  it('is nothing for a slot that may only be read, but what is stored to it', () => {
    const { calls, cpu, map, slot, load, results, exit, get } = machine();
    const hva = map(1);
    calls.writeMemory(hva + 8, Uint8Array.of(7));
    slot(0, 0x1000, 1, hva, MEM.READONLY);
    load([operation.load(0x1008, 1), store(0x1008, 1, 9n), operation.load(0x1008, 1)]);
    expect([calls.run(cpu, 0), exit(), results.splice(0)]).toEqual([0, EXIT.MMIO, [7n]]);
    expect([calls.run(cpu, 0), exit(), results, get(hva + 8, 1)]).toEqual([0, EXIT.HLT, [undefined, 7n], [7]]);
  });

  it('tells of a page that the host lacks by EFAULT, and the access is made once it is there', () => {
    const { calls, fd, cpu, map, slot, load, results, exit, get } = machine();
    const hva = map(3);
    slot(0, 0, 3, hva);
    expect(calls.mprotect(hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    load([store(PAGE - 2, 4, 0x0403_0201n), operation.load(PAGE - 2, 4)]);
    expect([calls.run(cpu, 0), calls.run(cpu, 0), exit()]).toEqual([-EFAULT, -EFAULT, EXIT.UNKNOWN]);
    // The processor looks at both pages of a store before it changes one.
    expect([get(hva + PAGE - 2, 2), results]).toEqual([[0, 0], []]);
    expect(calls.mprotect(hva + PAGE, PAGE, RW)).toBe(0);
    expect([calls.run(cpu, 0), exit(), results]).toEqual([0, EXIT.HLT, [undefined, 0x0403_0201n]]);
    expect(get(hva + PAGE - 2, 4)).toEqual([1, 2, 3, 4]);
    // One without a slot is a device, also where it is the first of two.
    load([store(4 * PAGE - 1, 2, 0x0201n)]);
    calls.setUserMemoryRegion(fd, 1, 0, 4 * PAGE, PAGE, hva);
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.MMIO]);
    expect([calls.run(cpu, 0), exit(), get(hva, 1)]).toEqual([0, EXIT.HLT, [2]]);
  });

  it('are the units of a string that KVM moves itself, up to a page that the host lacks', () => {
    const { calls, cpu, run, map, slot, load, exit, get } = machine();
    const hva = map(2);
    slot(0, 0, 2, hva);
    calls.writeMemory(hva + PAGE - 1, Uint8Array.of(1, 2));
    expect(calls.mprotect(hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    load([outs(0x1f0, 1, PAGE - 1, 2), ins(0x1f0, 2, PAGE - 1, 1)]);
    const moved = (): unknown => [calls.run(cpu, 0), exit(), run.getUint8(PAGE)];
    expect(moved()).toEqual([0, EXIT.IO, 1]);
    expect([calls.run(cpu, 0), calls.run(cpu, 0)]).toEqual([-EFAULT, -EFAULT]);
    expect(calls.mprotect(hva + PAGE, PAGE, RW)).toBe(0);
    expect(moved()).toEqual([0, EXIT.IO, 2]);
    expect(calls.run(cpu, 0)).toBe(0);
    expect(calls.mprotect(hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    run.setUint16(PAGE, 0x0605, true);
    // What fits before that page is there.
    expect([calls.run(cpu, 0), get(hva + PAGE - 1, 1)]).toEqual([-EFAULT, [5]]);
    expect(calls.mprotect(hva + PAGE, PAGE, RW)).toBe(0);
    expect([calls.run(cpu, 0), exit(), get(hva + PAGE - 1, 2)]).toEqual([0, EXIT.HLT, [5, 6]]);
  });

  it('is EFAULT where the guest’s code is in a slot and not in the host', () => {
    const { calls, cpu, map, slot, load, exit } = machine();
    const hva = map(2);
    slot(0, 0, 2, hva);
    load([spin], { gpa: PAGE - 8, size: 16 });
    expect(calls.run(cpu, 0)).toBe(-EINTR);
    expect(calls.mprotect(hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    load([spin], { gpa: PAGE - 8, size: 16 });
    expect(calls.run(cpu, 0)).toBe(-EFAULT);
    // Nobody writes it.
    expect([calls.mprotect(hva + PAGE, PAGE, PROT.READ), calls.run(cpu, 0)]).toEqual([0, -EINTR]);
    expect(calls.mprotect(hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    load([spin], { gpa: PAGE - 8, size: 8 });
    expect(calls.run(cpu, 0)).toBe(-EINTR);
    // Without a slot KVM is to emulate it, and can't.
    load([spin], { gpa: 2 * PAGE - 8, size: 16 });
    expect(calls.mprotect(hva + PAGE, PAGE, RW)).toBe(0);
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.INTERNAL_ERROR]);
  });

  it('describes a private page that is missing; what was a device’s stays that until slots change', () => {
    const { calls, fd, cpu, run, load, map, slot, exit, get } = machine({ x86_64: { swProtectedVm: true } }, 1);
    const convert = (): number => calls.setMemoryAttributes(fd, 4 * PAGE, 2 * PAGE, 8, 0);
    load([store(4 * PAGE + 8, 1, 1n), store(4 * PAGE + 8, 1, 1n), store(5 * PAGE - 1, 2, 1n)]);
    expect([calls.run(cpu, 0), exit(), convert()]).toEqual([0, EXIT.MMIO, 0]);
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.MMIO]);
    const ram = map(1);
    slot(0, 0, 1, ram);
    const described = () => [run.getBigUint64(32, true), run.getBigUint64(40, true), run.getBigUint64(48, true)];
    expect([calls.run(cpu, 0), exit(), described()]).toEqual([
      -EFAULT,
      EXIT.MEMORY_FAULT,
      [BigInt(MEMORY_EXIT_FLAG.PRIVATE), BigInt(4 * PAGE), BigInt(PAGE)],
    ]);
    // A store that is in such a page in part changes nothing of the page before.
    expect(calls.setMemoryAttributes(fd, PAGE, PAGE, 8, 0)).toBe(0);
    load([store(PAGE - 1, 2, 0x0201n)]);
    expect([calls.run(cpu, 0), exit(), described()[1], get(ram, PAGE)[PAGE - 1]]).toEqual([
      -EFAULT,
      EXIT.MEMORY_FAULT,
      BigInt(PAGE),
      0,
    ]);
    // Nobody brings what no slot has, though somebody serves memory elsewhere.
    const uffd = calls.uffd!.userfaultfd(0);
    calls.uffd!.uffdApi(uffd, BigUint64Array.of(0n, 0n));
    const elsewhere = map(1);
    expect(calls.uffd!.uffdRegister(uffd, elsewhere, PAGE, UFFDIO_REGISTER_MODE.MISSING)).toBe(0);
    load([store(5 * PAGE + 8, 1, 1n)]);
    return expect(calls.runAsync(cpu)).resolves.toBe(-EFAULT);
  });

  it('describes a page that became private though a store to its read-only slot was a device’s before', () => {
    const { calls, fd, cpu, map, slot, load, exit } = machine({ x86_64: { swProtectedVm: true } }, 1);
    slot(0, 0, 1, map(1), MEM.READONLY);
    load([store(8, 1, 1n), store(8, 1, 1n)]);
    expect([calls.run(cpu, 0), exit(), calls.setMemoryAttributes(fd, 0, PAGE, 8, 0)]).toEqual([0, EXIT.MMIO, 0]);
    expect([calls.run(cpu, 0), exit()]).toEqual([-EFAULT, EXIT.MEMORY_FAULT]);
  });

  it('describes a private page of the guest’s code that is missing', () => {
    const { calls, fd, cpu, run, load, exit } = machine({ x86_64: { swProtectedVm: true } }, 1);
    expect(calls.setMemoryAttributes(fd, 4 * PAGE, PAGE, 8, 0)).toBe(0);
    load([spin], { gpa: 4 * PAGE + 8, size: 16 });
    expect([calls.run(cpu, 0), exit(), run.getBigUint64(40, true)]).toEqual([
      -EFAULT,
      EXIT.MEMORY_FAULT,
      BigInt(4 * PAGE),
    ]);
  });

  it('says nothing of code that was missing once it is there', () => {
    const { calls, fd, cpu, run, map, slot, load, results, exit } = machine({ release: '6.18' });
    const hva = map(1);
    slot(0, 0, 1, hva);
    load([store(MMIO_AT, 1, 1n)], { gpa: 8, size: 16 });
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.MMIO]);
    expect(calls.setUserMemoryRegion(fd, 0, 0, 0, 0, 0)).toBe(0);
    const [EMULATION, DELIVERY] = [1, 3];
    const suberror = (): number => run.getUint32(32, true);
    expect([calls.run(cpu, 0), exit(), suberror()]).toEqual([0, EXIT.INTERNAL_ERROR, EMULATION]);
    expect([calls.run(cpu, 0), exit(), suberror()]).toEqual([0, EXIT.INTERNAL_ERROR, DELIVERY]);
    run.setUint32(32, 99, true);
    slot(0, 0, 1, hva);
    expect([calls.run(cpu, 0), exit(), suberror()]).toEqual([0, EXIT.HLT, 99]);
    expect(results).toMatchObject([{ name: 'GuestFault', code: 6 }]);
  });

  it('leaves both pages of a store as they are where the other is the guest’s first, and missing', () => {
    const { machine: facts } = x86_64Architecture(parseRelease('6.12'));
    const memory = new EmulatedHostMemory(PAGE);
    const vm = new EmulatedVm(facts, memory, facts.vmTypes[0]!, () => ({}));
    // Virtual page 2 is the guest's first one.
    const translate = (address: number): number => (address < 2 * PAGE ? address : address - 2 * PAGE);
    const vcpu = new EmulatedVcpu(vm, 0, () => ({ setMpState: () => 0, translate }));
    const hva = memory.map({ length: 2 * PAGE, prot: RW, flags: MAP.PRIVATE | MAP.ANONYMOUS }, 0, 0, undefined);
    const request = { version: 1, slot: 0, flags: 0, gpa: 0n, size: BigInt(2 * PAGE), hva: BigInt(hva) } as const;
    expect(vm.setUserMemoryRegion({ ...request, guestMemfdOffset: 0n }, () => 0)).toBe(0);
    expect(memory.protect(hva, PAGE, PROT.NONE)).toBe(0);
    vcpu.load(
      (function* (): GuestProgram {
        yield store(2 * PAGE - 2, 4, 0x0403_0201n);
      })(),
    );
    const before = new Uint8Array(2);
    expect([vcpu.run(0), memory.read(hva + 2 * PAGE - 2, before), ...before]).toEqual([-EFAULT, 2, 0, 0]);
  });

  it('is what its architecture tells a guest of what is not there', () => {
    const x86 = machine();
    x86.load([execute(0x1000), operation.hypercall(1, 2n), instruction('ISKE')]);
    expect([x86.calls.run(x86.cpu, 0), x86.exit()]).toEqual([0, EXIT.HLT]);
    expect(x86.results).toEqual([
      new GuestFault(0, 'there is no load or store at 0x1000'),
      undefined,
      new GuestFault(0, 'x86_64 has no ISKE here'),
    ]);
    const s390 = machine({ arch: 's390x' });
    const map = (length: number): number =>
      s390.calls.mmap(length, RW, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0, 0x10_0000, 0);
    expect(s390.calls.setUserMemoryRegion(s390.fd, 0, 0, 0, 0x10_0000, map(0x10_0000))).toBe(0);
    s390.load([store(0x20_0000, 1, 1n), operation.load(0x1000, 4), store(0xf_fffe, 4, 1n)]);
    s390.calls.run(s390.cpu, 0);
    // Addressing exceptions.
    expect(s390.results).toMatchObject([{ name: 'GuestFault', code: 5 }, 0n, { name: 'GuestFault', code: 5 }]);
  });

  it('says nothing of code that is missing where the architecture doesn’t', () => {
    const { calls, cpu, load, results } = machine({ arch: 'aarch64' });
    load([operation.out(1, 1, 1n), spin], { gpa: 0x1000, size: 16 });
    expect([calls.run(cpu, 0), calls.run(cpu, 0), results]).toEqual([0, -EINTR, [undefined]]);
  });

  it('is shown where mmap(2) finds it, and a ring where there is one', () => {
    const { calls, fd, cpu } = machine();
    const show = (of: number, page: number, pages = 1): number =>
      calls.mmap(pages * PAGE, RW, MAP.SHARED, of, page * PAGE, 0, 0);
    const RING_PAGE = 64;
    expect(calls.readMemory(show(cpu, RING_PAGE), new Uint8Array(1))).toBe(-EFAULT);
    // All vCPUs of a VM have one page of coalesced stores.
    const other = calls.createVcpu(fd, 1);
    const [mine, theirs] = [show(cpu, 2), show(other, 2)];
    calls.writeMemory(mine + 100, Uint8Array.of(7));
    const back = new Uint8Array(1);
    expect([calls.readMemory(theirs + 100, back), back[0]]).toEqual([1, 7]);
    // Nothing comes behind it.
    const two = new Uint8Array(2 * PAGE);
    expect([calls.readMemory(show(other, 2, 2), two), two[100]]).toEqual([PAGE, 7]);
    calls.writeMemory(show(cpu, 1), Uint8Array.of(8));
    expect([calls.readMemory(show(other, 1), back), back[0]]).toEqual([1, 0]);
    const ringed = calls.createVm(calls.openKvm(), 0);
    expect(calls.enableCap(ringed, CAP.DIRTY_LOG_RING, 0, [2 * PAGE])).toBe(0);
    const withRing = calls.createVcpu(ringed, 0);
    expect(calls.writeMemory(show(withRing, RING_PAGE, 2) + PAGE, Uint8Array.of(9))).toBe(1);
    const bytesAt = (page: number): unknown[] => [
      calls.readMemory(show(withRing, page), two.subarray(0, PAGE)),
      two[0],
    ];
    expect([bytesAt(RING_PAGE), bytesAt(RING_PAGE + 1)]).toEqual([
      [PAGE, 0],
      [PAGE, 9],
    ]);
    expect(calls.readMemory(show(withRing, RING_PAGE + 2), two)).toBe(-EFAULT);
    // As the real kernel answers (vcpu-real.test.ts): what begins or ends in the ring is no private mapping, and nothing is code.
    const mapped = (of: number, page: number, pages: number, flags: number, prot = RW): number =>
      Math.min(0, calls.mmap(pages * PAGE, prot, flags, of, page * PAGE, 0, 0));
    const privately = [62, 63, RING_PAGE, RING_PAGE + 1, RING_PAGE + 2].map((page) =>
      mapped(withRing, page, 2, MAP.PRIVATE),
    );
    expect(privately).toEqual([0, -EINVAL, -EINVAL, -EINVAL, 0]);
    expect([mapped(withRing, RING_PAGE - 1, 1, MAP.PRIVATE), mapped(cpu, RING_PAGE, 1, MAP.PRIVATE)]).toEqual([0, 0]);
    const code = [cpu, fd, calls.eventfd(0)].map((of) => mapped(of, 0, 1, MAP.SHARED, PROT.READ | PROT.EXEC));
    expect(code).toEqual([-EPERM, -EPERM, -EPERM]);
  });

  it('is an interruption for who kicks a run, or the next one; user space’s own wish to leave is user space’s', async () => {
    const { calls, cpu, run, load, exit } = machine();
    load([spin]);
    expect([calls.stop(cpu), run.getUint8(1), calls.kick(cpu), run.getUint8(1)]).toEqual([0, 0, 0, 1]);
    run.setUint32(8, 99, true);
    // A run that never came to the guest leaves the reason of the exit before.
    expect([calls.run(cpu, 0), run.getUint8(1), exit()]).toEqual([-EINTR, 0, 99]);
    expect([calls.run(cpu, 0), exit()]).toEqual([-EINTR, EXIT.INTR]);
    run.setUint8(1, 1);
    expect([calls.run(cpu, 0), run.getUint8(1)]).toEqual([-EINTR, 1]);
    expect([await calls.runAsync(cpu), run.getUint8(1)]).toEqual([-EINTR, 1]);
    run.setUint8(1, 0);
    const running = calls.runAsync(cpu);
    expect([calls.stop(cpu), await running, run.getUint8(1)]).toEqual([0, -EINTR, 0]);
  });

  it('stays when a kick comes before the guest is entered, though another guest is loaded at that moment', async () => {
    // Since 6.8 the reason of the exit before goes in any case.
    const { calls, fd, cpu, load, exit } = machine({ release: '6.7' });
    // What is stored leads to no exit.
    expect(calls.ioeventfd(fd, MMIO_AT, 1, calls.eventfd(0), 0, 0)).toBe(0);
    load([
      update(MMIO_AT, 1, (old) => {
        load([spin]);
        calls.kick(cpu);
        return old;
      }),
    ]);
    expect([await calls.runAsync(cpu), exit()]).toEqual([0, EXIT.MMIO]);
    expect([await calls.runAsync(cpu), exit()]).toEqual([-EINTR, EXIT.MMIO]);
  });

  it('stays where user space wishes to leave, and what it answered has to wait for a page', async () => {
    const { calls, cpu, run, map, slot, load, exit, get } = machine();
    const hva = map(1);
    slot(0, 0, 1, hva);
    const uffd = calls.uffd!.userfaultfd(0);
    calls.uffd!.uffdApi(uffd, BigUint64Array.of(0n, 0n));
    expect(calls.uffd!.uffdRegister(uffd, hva, PAGE, UFFDIO_REGISTER_MODE.MISSING)).toBe(0);
    load([ins(0x1f0, 1, 8, 1)]);
    expect([await calls.runAsync(cpu), exit()]).toEqual([0, EXIT.IO]);
    run.setUint8(PAGE, 7);
    run.setUint8(1, 1);
    const leaves = calls.runAsync(cpu);
    for (let turn = 0; turn < 3; turn++) await new Promise((turned) => setImmediate(turned));
    // Too late for one that doesn't wait.
    calls.stop(cpu);
    expect([await leaves, exit()]).toEqual([-EINTR, EXIT.IO]);
    run.setUint8(1, 0);
    // And is made once the page is there.
    calls.close(uffd);
    expect([calls.run(cpu, 0), exit(), get(hva + 8, 1)]).toEqual([0, EXIT.HLT, [7]]);
  });

  it('stays when somebody stops a run that has come to its end', async () => {
    const { calls, cpu, run, map, slot, load, exit } = machine();
    const hva = map(1);
    slot(0, 0, 1, hva);
    calls.munmap(hva, PAGE);
    load([store(MMIO_AT, 1, 1n), store(0, 1, 1n)]);
    const exits = calls.runAsync(cpu);
    expect([calls.stop(cpu), run.getUint8(1), await exits, exit()]).toEqual([0, 0, 0, EXIT.MMIO]);
    const fails = calls.runAsync(cpu);
    expect([calls.stop(cpu), run.getUint8(1), await fails]).toEqual([0, 0, -EFAULT]);
    run.setUint8(1, 1);
    const leaves = calls.runAsync(cpu);
    expect([calls.stop(cpu), await leaves, run.getUint8(1)]).toEqual([0, -EINTR, 1]);
    run.setUint8(1, 0);
    // The next one isn't at its end.
    calls.loadGuest(
      cpu,
      (function* (): GuestProgram {
        calls.stop(cpu);
        yield operation.out(1, 1, 1n);
        yield operation.out(2, 1, 1n);
      })(),
    );
    expect([calls.run(cpu, 0), run.getUint16(34, true)]).toEqual([0, 1]);
    expect([calls.run(cpu, 0), calls.run(cpu, 0), run.getUint16(34, true)]).toEqual([-EINTR, 0, 2]);
  });

  it('is an interruption where somebody stops the very first one while it is under way', () => {
    const { calls, cpu, exit } = machine();
    calls.loadGuest(
      cpu,
      (function* (): GuestProgram {
        calls.stop(cpu);
        yield operation.out(1, 1, 1n);
      })(),
    );
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.IO]);
    expect([calls.run(cpu, 0), calls.run(cpu, 0), exit()]).toEqual([-EINTR, 0, EXIT.HLT]);
  });

  it('comes after a thousand operations at a time, between which others have their turn', async () => {
    const { calls, cpu, run, map, slot, exit } = machine();
    slot(0, 0, 1, map(1));
    let count = 0;
    calls.loadGuest(
      cpu,
      (function* (): GuestProgram {
        for (;;) {
          yield store(0, 1, 1n);
          count++;
        }
      })(),
    );
    const running = calls.runAsync(cpu);
    // The last one's result isn't taken yet.
    expect(count).toBe(999);
    await new Promise((turn) => setImmediate(turn));
    await Promise.resolve();
    calls.kick(cpu);
    const sofar = count;
    expect(await running).toBe(-EINTR);
    expect([sofar % 1000, count]).toEqual([999, sofar]);
    // It is over with that.
    expect([run.getUint8(1), exit()]).toEqual([0, EXIT.INTR]);
  });

  it('is an interruption where somebody kicks it between two operations of one turn', () => {
    const { calls, cpu, run, map, slot, exit } = machine();
    slot(0, 0, 1, map(1));
    calls.loadGuest(
      cpu,
      (function* (): GuestProgram {
        yield store(0, 1, 1n);
        calls.kick(cpu);
        yield store(0, 1, 2n);
        yield store(0, 1, 3n);
      })(),
    );
    run.setUint32(8, 99, true);
    expect([calls.run(cpu, 0), run.getUint8(1), exit()]).toEqual([-EINTR, 0, EXIT.INTR]);
    expect([calls.run(cpu, 0), exit()]).toEqual([0, EXIT.HLT]);
  });

  it('isn’t taken twice where a unit of a string fails behind others', () => {
    const { calls, fd, cpu, map, slot, load, exit } = machine();
    const hva = map(2);
    slot(0, 0, 2, hva);
    expect(calls.mprotect(hva + PAGE, PAGE, PROT.NONE)).toBe(0);
    const doorbell = calls.eventfd(0);
    const PIO = 2;
    expect(calls.ioeventfd(fd, 0x1f0, 1, doorbell, PIO, 0)).toBe(0);
    const rung = (): bigint => {
      const count = new BigUint64Array(1);
      return calls.read(doorbell, new Uint8Array(count.buffer)) === 8 ? count[0]! : 0n;
    };
    load([outs(0x1f0, 1, PAGE - 2, 4)]);
    expect([calls.run(cpu, 0), rung(), calls.run(cpu, 0), rung()]).toEqual([-EFAULT, 2n, -EFAULT, 0n]);
    expect(calls.mprotect(hva + PAGE, PAGE, RW)).toBe(0);
    expect([calls.run(cpu, 0), exit(), rung()]).toEqual([0, EXIT.HLT, 2n]);
  });

  it('asks where memory is once a page: for a store where a string goes there, for a load where it comes from there', () => {
    const { machine: facts } = x86_64Architecture(parseRelease('6.12'));
    const vm = new EmulatedVm(facts, new EmulatedHostMemory(PAGE), facts.vmTypes[0]!, () => ({}));
    const asked: unknown[] = [];
    const translate = (...access: [address: number, size: number, write: boolean]): number => {
      asked.push(access);
      return access[0];
    };
    const vcpu = new EmulatedVcpu(vm, 0, () => ({ setMpState: () => 0, exitsOnHalt: true, translate }));
    vcpu.load(
      (function* (): GuestProgram {
        yield ins(0x1f0, 2, MMIO_AT, 3);
        yield outs(0x1f0, 2, MMIO_AT, 1);
        yield operation.load(MMIO_AT + PAGE - 3, 8);
      })(),
    );
    // In, to the device, from the device, out; from two pages of the device.
    for (const reason of [EXIT.IO, EXIT.MMIO, EXIT.MMIO, EXIT.IO, EXIT.MMIO, EXIT.MMIO, EXIT.HLT])
      expect([vcpu.run(0), vcpu.area.view.getUint32(8, true)]).toEqual([0, reason]);
    expect(asked).toEqual([
      [MMIO_AT, 6, true],
      [MMIO_AT, 2, false],
      [MMIO_AT + PAGE - 3, 3, false],
      [MMIO_AT + PAGE, 5, false],
    ]);
  });

  it('is the program’s where it faults behind an exit', () => {
    const { machine: facts } = x86_64Architecture(parseRelease('6.12'));
    const vm = new EmulatedVm(facts, new EmulatedHostMemory(PAGE), facts.vmTypes[0]!, () => ({}));
    const readOnly = new GuestFault(7, 'it may not be stored to');
    const vcpu = new EmulatedVcpu(vm, 5, () => ({
      setMpState: () => 0,
      exitsOnHalt: true,
      translate: (address, _size, write) => {
        if (write) throw readOnly;
        return address;
      },
    }));
    const caught: unknown[] = [];
    vcpu.load(
      (function* (): GuestProgram {
        try {
          yield update(MMIO_AT, 4, (old) => old + 1n);
        } catch (fault) {
          caught.push(fault);
        }
        caught.push(yield operation.load(MMIO_AT, 1));
      })(),
    );
    const reason = (): number => vcpu.area.view.getUint32(8, true);
    expect([vcpu.run(0), reason(), caught]).toEqual([0, EXIT.MMIO, []]);
    expect([vcpu.run(0), reason(), caught]).toEqual([0, EXIT.MMIO, [readOnly]]);
    vcpu.area.view.setUint8(40, 9);
    expect([vcpu.run(0), reason(), caught]).toEqual([0, EXIT.HLT, [readOnly, 9n]]);
  });
});
