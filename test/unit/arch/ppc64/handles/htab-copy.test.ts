import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  decodeHtabStream,
  diffHtabs,
  encodeHtabStream,
  Htab,
  HtabStreamError,
  verifyHtab,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import type { HtabCopyPass, Vm } from '../../../../../lib/index.ts';
import { type GuestProgram, spin } from '../../../../../lib/raw.ts';
import { chunkOf, collect, enter, hptVm, identity, ORDER, PAGE_SIZES, remove, runGuest } from './emulated-hpt.ts';

/** A table with many entries that stand where they can be found. */
function filledTable(): Htab {
  const table = new Htab(ORDER);
  for (let page = 0; page < 1000; page++) {
    const { slot, entry } = identity(page * 4096);
    for (let at = slot; at < slot + 8; at++) {
      if (table.isValid(at)) continue;
      table.set(at, entry);
      break;
    }
  }
  return table;
}

describe.each(PAGE_SIZES)('streams and copies on hosts with pages of %i bytes', (pageSize) => {
  test('a Readable gives a pass as bytes', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(filledTable());
    const stream = vm.hpt.createReadStream();
    const bytes = Buffer.concat(await collect(stream));
    expect([...diffHtabs(filledTable(), decodeHtabStream(bytes, { order: ORDER }))]).toEqual([]);
  });

  test('a Readable of more passes ends when nothing changes', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(filledTable());
    const bytes = Buffer.concat(await collect(vm.hpt.createReadStream({ passes: Number.POSITIVE_INFINITY })));
    expect([...diffHtabs(filledTable(), decodeHtabStream(bytes, { order: ORDER }))]).toEqual([]);
  });

  test('a Readable reads no more than is taken from it, and closes its descriptor when destroyed', async () => {
    const lines: string[] = [];
    const { vm, kvm } = hptVm(pageSize, 20);
    const { entry } = identity(0);
    const table = new Htab(20);
    for (let slot = 0; slot < table.entryCount; slot += 2) table.set(slot, entry);
    vm.hpt.write(table);
    const read = kvm.calls.read;
    Object.assign(kvm.calls, {
      read: (fd: number, into: Uint8Array) => {
        lines.push('read');
        return read.call(kvm.calls, fd, into);
      },
    });
    const stream = vm.hpt.createReadStream({ highWaterMark: 1024 });
    lines.length = 0;
    stream.once('readable', () => stream.read(10));
    for (let i = 0; i < 20; i++) await turn();
    expect(lines.length).toBeLessThan(3);
    stream.destroy();
    await new Promise((done) => stream.once('close', done));
    vm.hpt.openReader({ boltedOnly: true }).close();
  });

  test('pieces of any size go through a Writable', async () => {
    const { vm } = hptVm(pageSize);
    const bytes = encodeHtabStream(filledTable());
    for (const size of [1, 7, 1000]) {
      vm.hpt.allocate(ORDER);
      const step = size === 1 ? 3 : size;
      async function* pieces(): AsyncGenerator<Uint8Array> {
        for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
      }
      await pipeline(pieces(), vm.hpt.createWriteStream());
      expect([...diffHtabs(filledTable(), vm.hpt.read())]).toEqual([]);
    }
  });

  test('a pipeline from one VM to another', async () => {
    const from = hptVm(pageSize).vm;
    const to = hptVm(pageSize).vm;
    from.hpt.write(filledTable());
    await pipeline(from.hpt.createReadStream(), to.hpt.createWriteStream());
    expect([...diffHtabs(from.hpt.read(), to.hpt.read())]).toEqual([]);
  });

  test('a Writable tells where in the stream a mistake is', async () => {
    const { vm } = hptVm(pageSize);
    const good = chunkOf(identity(0));
    const bad = chunkOf(identity(0x1_0000));
    bad[8 + 7]! &= ~1;
    const failing = async (...pieces: Uint8Array[]): Promise<unknown> =>
      pipeline(pieces, vm.hpt.createWriteStream()).catch((error: unknown) => error);
    expect(await failing(good, good.subarray(0, 5), Buffer.concat([good.subarray(5), bad]))).toMatchObject({
      problem: 'not-valid',
      offset: 56,
    });
    const cut = await failing(good, good.subarray(0, 20));
    expect(cut).toBeInstanceOf(HtabStreamError);
    expect(cut).toMatchObject({ problem: 'truncated-entries', offset: 24 });
  });

  test('a Writable takes no stream without end', async () => {
    const { vm } = hptVm(pageSize);
    const failing = async (chunk: Uint8Array, options: { readonly maxTurns?: number }) => {
      let given = 0;
      async function* endless(): AsyncGenerator<Uint8Array> {
        for (; given < 1e6; given++) yield chunk;
      }
      const error = await pipeline(endless(), vm.hpt.createWriteStream({ highWaterMark: 1, ...options })).catch(
        (reason: unknown) => reason,
      );
      return { error, given };
    };
    const slots = 2 ** (vm.hpt.getOrder()! - 4);
    const half = new Uint8Array(8);
    new DataView(half.buffer).setUint16(6, slots / 2, true);
    for (const [maxTurns, most] of [
      [undefined, 128],
      [3, 6],
    ] as const) {
      const { error, given } = await failing(half, maxTurns === undefined ? {} : { maxTurns });
      expect(error).toMatchObject({ code: 'ERR_HTAB_STREAM', problem: 'repeats' });
      expect(given).toBeGreaterThanOrEqual(most);
      // What a pipeline has in its buffers was asked for, and not written.
      expect(given).toBeLessThan(most + 20);
    }
    const nothing = Buffer.concat(Array.from({ length: 4096 }, () => new Uint8Array(8)));
    const { error, given } = await failing(nothing, { maxTurns: 1 });
    expect(error).toMatchObject({ problem: 'repeats', message: expect.stringContaining('more than 1 times') });
    expect(given).toBeLessThan(slots / 4096 + 20);
  });

  test('streams are aborted', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(filledTable());
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(collect(vm.hpt.createReadStream({ signal }))).rejects.toMatchObject({ name: 'AbortError' });
    await expect(pipeline([new Uint8Array(8)], vm.hpt.createWriteStream({ signal }))).rejects.toMatchObject({
      name: 'AbortError',
    });
    await expect(collect(vm.hpt.chunks({ signal }))).rejects.toThrow('enough');
  });

  test("copyTo gives a running guest's table to another VM", async () => {
    const { vm, kvm } = hptVm(pageSize);
    const target = hptVm(pageSize, 'radix').vm;
    vm.hpt.write(filledTable());
    const vcpu = vm.createVcpu();
    vcpu.ppc64.enablePapr();
    kvm.emulated!.loadGuest(
      vcpu.fd,
      (function* (): GuestProgram {
        for (let i = 0; i < 3000; i++) {
          const { slot, entry } = identity((i % 500) * 4096, { referenced: true });
          yield remove(slot + 7);
          yield enter({ slot: slot + 7, entry });
        }
        yield spin;
      })(),
    );
    const running = vcpu.run();
    const passes: HtabCopyPass[] = [];
    const result = await vm.hpt.copyTo(target, {
      settled: 4,
      onPass: (pass) => passes.push(pass),
      stop: async () => {
        vcpu.kick();
        await running;
      },
    });
    expect(result).toEqual(passes);
    expect(passes[0]).toMatchObject({ pass: 0, slots: 2 ** (ORDER - 4), last: false });
    expect(passes.filter(({ last }) => last)).toEqual([passes.at(-1)]);
    expect(passes.some(({ pass, slots }) => pass > 0 && slots > 4)).toBe(true);
    expect([...diffHtabs(vm.hpt.read(), target.hpt.read())]).toEqual([]);
    expect(target.hpt.getOrder()).toBe(ORDER);
    expect([...verifyHtab(target.hpt.read())].filter(({ problem }) => problem !== 'duplicate')).toEqual([]);
  });

  test('copyTo overwrites what the target had', async () => {
    const { vm } = hptVm(pageSize);
    const target = hptVm(pageSize).vm;
    vm.hpt.write(chunkOf(identity(0)));
    target.hpt.write(filledTable());
    await vm.hpt.copyTo(target);
    expect([...diffHtabs(vm.hpt.read(), target.hpt.read())]).toEqual([]);
  });

  test('copyTo of a guest that never settles ends after maxPasses', async () => {
    const { vm, kvm } = hptVm(pageSize);
    const vcpu = vm.createVcpu();
    vcpu.ppc64.enablePapr();
    vm.hpt.write(chunkOf(identity(0)));
    let changes = 0;
    const result = await vm.hpt.copyTo(hptVm(pageSize).vm, {
      settled: 0,
      maxPasses: 4,
      onPass: () => {
        const { entry } = identity(0x1_0000);
        if (changes < 4) runGuest(kvm, vcpu, enter({ slot: 100 + changes++, entry }));
      },
    });
    expect(result.map(({ slots }) => slots)).toEqual([2 ** (ORDER - 4), 1, 1, 1, 1]);
  });

  test('copyTo is aborted, also by what stop does', async () => {
    const { vm } = hptVm(pageSize);
    const target = hptVm(pageSize).vm;
    const reason = new Error('enough');
    await expect(vm.hpt.copyTo(target, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const stop = () => Promise.reject(reason);
    await expect(vm.hpt.copyTo(target, { stop })).rejects.toBe(reason);
    vm.hpt.openReader({ boltedOnly: true }).close();
  });

  test('copyTo a VM that runs is refused and explained', async () => {
    const { vm } = hptVm(pageSize);
    const { vm: target } = hptVm(pageSize);
    target.hpt.write(chunkOf(identity(0)));
    const vcpu = target.createVcpu();
    vcpu.ppc64.enablePapr();
    const running = vcpu.run();
    await expect(vm.hpt.copyTo(target)).rejects.toMatchObject({ code: 'EBUSY', explanation: /vCPU 0/ });
    vcpu.kick();
    await running;
  });

  /** Does something to a table when a pass was copied for the first time. */
  const duringCopy = async (from: Vm, to: Vm, change: () => void) => {
    const passes: HtabCopyPass[] = [];
    let stops = 0;
    const result = await from.hpt.copyTo(to, {
      onPass: (pass) => {
        passes.push(pass);
        if (passes.length === 1) change();
      },
      stop: () => void stops++,
    });
    return { passes, result, stops };
  };

  test.each(['of the same order', 'of another order', 'by a resize'])(
    'copyTo begins anew when the source gets a table %s',
    async (how) => {
      const { vm, kvm } = hptVm(pageSize);
      const target = hptVm(pageSize).vm;
      const vcpu = vm.createVcpu();
      vcpu.ppc64.enablePapr();
      runGuest(kvm, vcpu);
      if (how === 'by a resize') for (let wait = 1; wait > 0; wait = vm.hpt.prepareResize(19)) await sleep(wait);
      vm.hpt.write(filledTable());
      const { passes, result, stops } = await duringCopy(vm, target, () => {
        if (how === 'by a resize') vm.hpt.commitResize(19);
        else vm.hpt.allocate(how === 'of the same order' ? ORDER : 19);
        vm.hpt.write(chunkOf({ slot: 8, entry: identity(0).entry }));
      });
      expect(passes.map(({ pass }) => pass)).toEqual([0, 0, 1, 2]);
      expect(result).toEqual(passes.slice(1));
      expect(stops).toBe(1);
      expect(target.hpt.getOrder()).toBe(how === 'of the same order' ? ORDER : 19);
      expect(vm.hpt.read().isValid(8)).toBe(true);
      expect([...diffHtabs(vm.hpt.read(), target.hpt.read())]).toEqual([]);
    },
  );

  test('copyTo begins anew when the target gets another table', async () => {
    const { vm } = hptVm(pageSize);
    const target = hptVm(pageSize).vm;
    vm.hpt.write(filledTable());
    const { passes } = await duringCopy(vm, target, () => target.hpt.allocate(ORDER));
    expect(passes.map(({ pass }) => pass)).toEqual([0, 0, 1, 2]);
    expect([...diffHtabs(vm.hpt.read(), target.hpt.read())]).toEqual([]);
  });

  test('a table that goes in the middle of a copy is missed', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(filledTable());
    const toRadix = (): void => vm.hpt.configureV3Mmu({ radix: true });
    await expect(duringCopy(vm, hptVm(pageSize).vm, toRadix)).rejects.toMatchObject({ code: 'EINVAL' });
  });

  test('whoever reads or writes passes is told that the table is another one', async () => {
    const { vm } = hptVm(pageSize);
    vm.hpt.write(filledTable());
    using reader = vm.hpt.openReader();
    expect(reader.next()?.bytes.length).toBeGreaterThan(0);
    const stream = vm.hpt.createReadStream({ passes: Number.POSITIVE_INFINITY, highWaterMark: 64 });
    const pieces = vm.hpt.createWriteStream();
    await new Promise((done) => pieces.write(chunkOf(identity(0)), done));
    vm.hpt.allocate(ORDER);
    const stale = { code: 'ESTALE', errno: -116 };
    expect(() => reader.next()).toThrow(expect.objectContaining(stale));
    await expect(collect(reader.entries())).rejects.toMatchObject(stale);
    await expect(collect(stream)).rejects.toMatchObject(stale);
    await expect(pipeline([chunkOf(identity(0))], pieces)).rejects.toMatchObject(stale);
    using fresh = vm.hpt.openReader();
    expect(fresh.next()?.bytes.length).toBeGreaterThan(0);
  });

  test('an allocation that is refused leaves readers what they read', async () => {
    const { vm } = hptVm(pageSize);
    const vcpu = vm.createVcpu();
    vcpu.ppc64.enablePapr();
    vm.hpt.write(filledTable());
    using reader = vm.hpt.openReader();
    const running = vcpu.run();
    expect(() => vm.hpt.allocate(ORDER)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    expect(reader.next()?.bytes.length).toBeGreaterThan(0);
    vcpu.kick();
    await running;
  });
});
