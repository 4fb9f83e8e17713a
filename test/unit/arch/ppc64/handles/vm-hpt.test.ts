import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { diffHtabs, Htab, HtabStreamError, vrmaSegment } from '../../../../../lib/arch/ppc64/model/index.ts';
import { Kvm, type KvmError } from '../../../../../lib/index.ts';
import {
  chunkOf,
  collect,
  enter,
  hptVm,
  identity,
  ORDER,
  PAGE_SIZES,
  remove,
  runGuest,
  touch,
} from './emulated-hpt.ts';

const refusal = (call: () => unknown): Partial<KvmError> => {
  try {
    call();
  } catch (error) {
    return error as KvmError;
  }
  throw new Error('nothing was refused');
};

describe.each(PAGE_SIZES)('vm.hpt on a host with pages of %i bytes', (pageSize) => {
  describe('allocate', () => {
    test('makes a table whose order can be asked for, whoever changes it', () => {
      const { vm } = hptVm(pageSize, 'radix');
      expect(vm.hpt.getOrder()).toBeUndefined();
      for (const order of [20, 18, 24, 24]) {
        vm.hpt.allocate(order);
        expect(vm.hpt.getOrder()).toBe(order);
      }
      vm.calls.ppc64!.allocateHtab(vm.fd, 19);
      expect(vm.hpt.getOrder()).toBe(19);
    });

    test.each([0, 1, 10, 17, 47, 0xffff_ffff])('of order %i is never sent: the table stays', (order) => {
      const lines: string[] = [];
      const kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize, trace: (line) => lines.push(line) });
      const vm = kvm.createVm();
      vm.hpt.allocate(19);
      lines.length = 0;
      expect(() => vm.hpt.allocate(order)).toThrow(RangeError);
      expect(() => vm.hpt.allocate(order)).toThrow(/"order".*18.*46/);
      expect(lines.filter((line) => line.includes('ALLOCATE_HTAB'))).toEqual([]);
      expect(vm.hpt.getOrder()).toBe(19);
    });

    test('of more than the host has', () => {
      const { vm } = hptVm(pageSize);
      const { code, explanation } = refusal(() => vm.hpt.allocate(40));
      expect([code, explanation]).toEqual(['ENOMEM', expect.stringContaining('contiguous memory')]);
    });

    test('while a vCPU runs', async () => {
      const { vm, kvm } = hptVm(pageSize);
      const vcpu = vm.createVcpu();
      vcpu.ppc64.enablePapr();
      vm.hpt.write(chunkOf(identity(0)));
      const running = vcpu.run();
      const { code, explanation } = refusal(() => vm.hpt.allocate(ORDER));
      expect([code, explanation]).toEqual(['EBUSY', expect.stringContaining('vCPU 0 is')]);
      const write = refusal(() => vm.hpt.write(chunkOf(identity(0x1_0000))));
      expect([write.code, write.explanation]).toEqual(['EBUSY', expect.stringContaining('kick it')]);
      vcpu.kick();
      await running;
      vm.hpt.write(chunkOf(identity(0x1_0000)));
      kvm.close();
    });
  });

  test('a radix VM has no table to read or write, and says so', async () => {
    const { vm } = hptVm(pageSize, 'radix');
    for (const call of [() => vm.hpt.read(), () => vm.hpt.translate(0, []), () => vm.hpt.write(chunkOf(identity(0)))]) {
      const { code, message } = refusal(call);
      expect([code, message]).toEqual(['EINVAL', expect.stringContaining('no hashed page table')]);
    }
    await expect(vm.hpt.copyTo(hptVm(pageSize).vm)).rejects.toMatchObject({ code: 'EINVAL' });
    const { explanation } = refusal(() => vm.hpt.prepareResize(20));
    expect(explanation).toContain('allocate one first');
  });

  test('what is written is read, without HVLOCK', () => {
    const { vm } = hptVm(pageSize);
    const wanted = [identity(0), identity(0x1_0000), identity(0x2_0000, { referenced: true, changed: true, key: 5 })];
    const table = new Htab(ORDER);
    for (const { slot, entry } of wanted) table.set(slot, entry);
    vm.hpt.write(table);
    const back = vm.hpt.read();
    expect([...diffHtabs(table, back)]).toEqual([]);
    for (const { slot, entry } of wanted) expect(back.get(slot).v).toBe(entry.v);
  });

  test('a table of another order is not written', () => {
    const { vm } = hptVm(pageSize);
    expect(() => vm.hpt.write(new Htab(ORDER + 1))).toThrow(RangeError);
  });

  test('a stream with a mistake in its last chunk changes nothing', () => {
    const { vm } = hptVm(pageSize);
    const good = chunkOf(identity(0));
    const bad = chunkOf(identity(0x1_0000));
    bad[8 + 7]! &= ~1;
    const beyond = chunkOf({ slot: 2 ** (ORDER - 4), entry: identity(0).entry });
    for (const [stream, offset] of [
      [Buffer.concat([good, bad]), 32],
      [Buffer.concat([good, beyond]), 24],
      [Buffer.concat([good, good.subarray(0, 9)]), 24],
    ] as const) {
      const error = refusal(() => vm.hpt.write(stream));
      expect(error).toBeInstanceOf(HtabStreamError);
      expect(error).toMatchObject({ offset });
    }
    expect([...diffHtabs(new Htab(ORDER), vm.hpt.read())]).toEqual([]);
  });

  test('a stream that clears the table again and again is refused before the kernel sees any of it', () => {
    const lines: string[] = [];
    const kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize, trace: (line) => lines.push(line) });
    const vm = kvm.createVm();
    vm.hpt.allocate(18);
    const clearing = Buffer.alloc(8);
    clearing.writeUInt16LE(2 ** 14, 6);
    expect(() => vm.hpt.write(Buffer.concat(Array(65).fill(clearing)))).toThrow(
      expect.objectContaining({ code: 'ERR_HTAB_STREAM', problem: 'repeats' }),
    );
    expect(lines.filter((line) => line.startsWith('write('))).toEqual([]);
  });

  test('many chunks in one write reach the kernel one by one', () => {
    const lines: string[] = [];
    const kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize, trace: (line) => lines.push(line) });
    const vm = kvm.createVm();
    vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
    vm.hpt.allocate(ORDER);
    vm.hpt.write(Buffer.concat([0, 0x1_0000, 0x2_0000].map((ea) => chunkOf(identity(ea)))));
    expect(lines.filter((line) => line.startsWith('write('))).toHaveLength(3);
    expect(lines.filter((line) => line.startsWith('read('))).not.toHaveLength(0);
    expect([0, 0x1_0000, 0x2_0000].map((ea) => vm.hpt.read().isValid(identity(ea).slot))).toEqual([true, true, true]);
  });

  test('an entry whose page the host cannot have is explained', () => {
    const { vm } = hptVm(pageSize);
    vm.memory.writeU32(0, 1);
    const { entry } = identity(0, { baseShift: 24 });
    const { code, explanation } = refusal(() => vm.hpt.write(chunkOf({ slot: 80, entry })));
    expect([code, explanation]).toEqual([
      'EIO',
      expect.stringMatching(/slot 80 has a page of 0x1000000 bytes, larger than/),
    ]);
  });

  test('passes: everything, then what changed, then nothing', async () => {
    const { vm, kvm } = hptVm(pageSize);
    const pages = [0, 0x1_0000, 0x2_0000].map((ea) => identity(ea));
    for (const page of pages) vm.hpt.write(chunkOf(page));
    const vcpu = vm.createVcpu();
    vcpu.ppc64.enablePapr();
    using reader = vm.hpt.openReader();
    const first = await collect(reader.entries());
    expect(first.map(({ slot }) => slot)).toEqual(pages.map(({ slot }) => slot).sort((a, b) => a - b));
    expect(reader.passes).toBe(1);
    expect(await collect(reader.entries())).toEqual([]);

    runGuest(kvm, vcpu, touch(0x1_0000), remove(pages[2]!.slot), enter({ slot: 9, entry: identity(0x5_0000).entry }));
    const changes = new Map((await collect(reader.entries())).map(({ slot, entry }) => [slot, entry]));
    expect(new Set(changes.keys())).toEqual(new Set([pages[1]!.slot, pages[2]!.slot, 9]));
    expect([changes.get(pages[1]!.slot)?.referenced, changes.get(pages[1]!.slot)?.changed]).toEqual([true, true]);
    expect(changes.get(pages[2]!.slot)).toBeUndefined();
    expect(changes.get(9)?.ra).toBe(0x5_0000n);
    expect(await collect(reader.entries())).toEqual([]);
    expect(reader.passes).toBe(4);
  });

  test('a budget of bytes or time ends early and loses nothing', async () => {
    const { vm } = hptVm(pageSize);
    const slots = Array.from({ length: 40 }, (_, i) => i * 3);
    const { entry } = identity(0);
    for (const slot of slots) vm.hpt.write(chunkOf({ slot, entry }));
    using reader = vm.hpt.openReader();
    const seen: number[] = [];
    let calls = 0;
    while (reader.passes === 0) {
      const budget = calls++ % 2 === 0 ? { maxBytes: 1 } : { maxMs: 0, maxBytes: 100 };
      for await (const { slot } of reader.entries(budget)) seen.push(slot);
    }
    expect(seen).toEqual(slots);
    expect(calls).toBeGreaterThan(10);
  });

  test('breaking out of a pass loses nothing', async () => {
    const { vm } = hptVm(pageSize);
    const { entry } = identity(0);
    for (const slot of [0, 10, 20]) vm.hpt.write(chunkOf({ slot, entry }));
    using reader = vm.hpt.openReader();
    const first: number[] = [];
    for await (const chunk of reader) {
      first.push(chunk.index);
      break;
    }
    const rest = (await collect(reader.chunks())).map(({ index }) => index);
    expect([first, rest]).toEqual([[0], [10, 20]]);
  });

  test('readers take nothing away from each other', async () => {
    const { vm, kvm } = hptVm(pageSize);
    vm.hpt.write(chunkOf(identity(0)));
    const vcpu = vm.createVcpu();
    vcpu.ppc64.enablePapr();
    using one = vm.hpt.openReader();
    using other = vm.hpt.openReader();
    await collect(one.chunks());
    await collect(other.chunks());
    await collect(one.chunks());
    runGuest(
      kvm,
      vcpu,
      enter({ slot: 9, entry: identity(0x5_0000).entry }),
      enter({ slot: 70, entry: identity(0x6_0000).entry }),
    );
    expect((await collect(one.entries())).map(({ slot }) => slot)).toEqual([9, 70]);
    runGuest(kvm, vcpu, remove(70));
    vm.hpt.translate(0x1000, [vrmaSegment()]);
    vm.hpt.getOrder();
    const seen = new Map((await collect(other.entries())).map(({ slot, entry }) => [slot, entry]));
    expect(seen.get(9)?.ra).toBe(0x5_0000n);
    expect(seen.has(70) && seen.get(70) === undefined).toBe(true);
    expect((await collect(one.entries())).some(({ slot }) => slot === 70)).toBe(true);
  });

  test('a reader of bolted entries beside one of all is refused', () => {
    const { vm } = hptVm(pageSize);
    const reader = vm.hpt.openReader();
    const { code, explanation } = refusal(() => vm.hpt.openReader({ boltedOnly: true }));
    expect([code, explanation]).toEqual(['EBUSY', expect.stringContaining('close the other reader')]);
    reader.close();
    vm.hpt.openReader({ boltedOnly: true }).close();
  });

  test('reading only bolted entries', () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(chunkOf(identity(0)));
    vm.hpt.write(chunkOf({ slot: 9, entry: identity(0x1_0000, { bolted: false }).entry }));
    expect([vm.hpt.read().isValid(9), vm.hpt.read({ boltedOnly: true }).isValid(9)]).toEqual([true, false]);
  });

  test('resize keeps what is bolted, where its hash leads', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(chunkOf(identity(0)));
    vm.hpt.write(chunkOf({ slot: 9, entry: identity(0x1_0000, { bolted: false }).entry }));
    const early = refusal(() => hptVm(pageSize).vm.hpt.commitResize(20));
    expect([early.code, early.explanation]).toEqual(['EIO', expect.stringContaining('no vCPU has run')]);
    const unprepared = refusal(() => vm.hpt.commitResize(20));
    expect([unprepared.code, unprepared.explanation]).toEqual(['ENXIO', 'order 20 was not prepared']);
    await vm.hpt.resize(20);
    expect(vm.hpt.getOrder()).toBe(20);
    const entries = await collect(vm.hpt.entries());
    expect(entries.map(({ entry }) => entry?.ra)).toEqual([0n]);
    expect(vm.hpt.translate(0x123, [vrmaSegment()]).result).toMatchObject({ ok: true, ra: 0x123n });
  });

  test('resize is aborted, and what was prepared is taken back', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(chunkOf(identity(0)));
    const reason = new Error('enough');
    const controller = new AbortController();
    const resizing = vm.hpt.resize(20, { signal: controller.signal });
    controller.abort(reason);
    await expect(resizing).rejects.toBe(reason);
    expect(refusal(() => vm.hpt.commitResize(20)).code).toBe('ENXIO');
    expect(vm.hpt.getOrder()).toBe(ORDER);
  });

  test('translate tells every step', () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(chunkOf(identity(0x1_0000)));
    const found = vm.hpt.translate(0x1_0123, [vrmaSegment()]);
    expect(found.result).toMatchObject({ ok: true, ra: 0x1_0123n, slot: identity(0x1_0000).slot });
    expect(found.steps.map(({ step }) => step)).toEqual(['segment', 'hash', 'probe', 'access', 'result']);
    expect(inspect(found)).toMatch(/effective address 0x0000000000010123\n {2}segment .*\n.*primary group/);
    const missing = vm.hpt.translate(0x9_0000, [vrmaSegment()]);
    expect(missing.result).toMatchObject({ ok: false, fault: 'no-hpte' });
    expect(missing.steps.filter(({ step }) => step === 'probe')).toHaveLength(16);
  });

  test('smmuInfo', () => {
    const info = hptVm(pageSize).vm.hpt.smmuInfo();
    expect(info).toMatchObject({ pageSizesReal: true, segments1T: true, noHash: false, slbSize: 32, dataKeys: 32 });
    expect(info.segments.map(({ baseShift, pages }) => [baseShift, pages.map(({ shift }) => shift)])).toEqual([
      [12, [12, 24]],
      [16, [16, 24]],
      [24, [24]],
    ]);
  });

  test('configureV3Mmu to radix and back', () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.configureV3Mmu({ radix: true, gtse: true });
    expect(vm.hpt.getOrder()).toBeUndefined();
    vm.hpt.configureV3Mmu({ radix: false });
    vm.hpt.allocate(ORDER);
    expect(vm.hpt.getOrder()).toBe(ORDER);
    for (const [config, why] of [
      [{ radix: false, processTable: 1n << 63n }, /bit 63/],
      [{ radix: true, processTable: 25n }, /size 25/],
    ] as const) {
      const { code, explanation } = refusal(() => vm.hpt.configureV3Mmu(config));
      expect([code, explanation]).toEqual(['EINVAL', expect.stringMatching(why)]);
    }
  });

  test('closing the VM closes its readers and writers', () => {
    const { vm } = hptVm(pageSize);
    const reader = vm.hpt.openReader();
    const writer = vm.hpt.openWriter();
    vm.close();
    expect([reader.closed, writer.closed]).toEqual([true, true]);
    expect(() => reader.next()).toThrow(/EBADF.*the reader is closed/);
    expect(() => vm.hpt.openReader()).toThrow(/EBADF.*the VM is closed/);
  });

  test('a vCPU without PAPR is told what it lacks', () => {
    const { vm } = hptVm(pageSize);
    expect(() => vm.createVcpu().runSync()).toThrow(/EINVAL.*enablePapr/);
  });
});

test('other architectures have no hashed page table', () => {
  const vm = Kvm.open({ backend: 'emulated', arch: 's390x' }).createVm();
  expect(() => vm.hpt).toThrow(/ENOTTY.*this is s390x/);
});
