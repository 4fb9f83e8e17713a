import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  AddressSpace,
  type Binding,
  type ConsumerEvent,
  KvmError,
  Mapping,
  type SpaceToken,
  UnixConnection,
} from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { SEAL } from '../../../lib/raw.ts';
import { HEADER, REGION } from '../../../lib/sharing/table/layout.ts';
import { UNIT } from '../handles/backends.ts';
import { ended, spawnChild } from './child.ts';
import { collector } from './collector.ts';
import { compile, compilerMissing } from './compile.ts';
import { forgeTable, putRegion } from './forged-table.ts';
import { hostCalls, openDescriptors, remainingDescriptors } from './host.ts';

const PAGE = 4096;

let calls: KvmCalls;
let before: number;
let space: AddressSpace;

beforeEach((test) => {
  calls = hostCalls(test);
  before = openDescriptors();
  space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  for (const gpa of [0, 4 * UNIT]) {
    using ram = Mapping.memfd(calls, UNIT);
    space.addRam(gpa, ram);
  }
  space.share({ regions: 16, consumers: 8, end: 2 ** 31 });
});
afterEach(async () => {
  space.close();
  expect(await remainingDescriptors(before)).toBeLessThanOrEqual(before);
});

async function attachOver(name: string): Promise<Binding> {
  const [ours, theirs] = UnixConnection.pair(calls);
  space.accept(ours);
  return AddressSpace.attach(calls, theirs, { name });
}

describe('a token', () => {
  it('that was never given, whatever is in it, is refused with a code', async () => {
    const anything = fc.oneof(
      fc.anything(),
      fc.constantFrom<unknown>(
        process.pid,
        space.fd,
        space.token.inode,
        space.descriptors[1],
        -1,
        2 ** 31,
        1n,
        1.5,
        NaN,
      ),
    );
    const forged = fc.record({
      type: fc.constant('kvm-bridge.AddressSpace'),
      pid: fc.oneof(fc.constant<unknown>(process.pid), anything),
      fd: anything,
      inode: anything,
    });
    const isRefused = fc.asyncProperty(forged, async (token) => {
      const { pid, fd, inode } = space.token;
      fc.pre(!(token.pid === pid && token.fd === fd && token.inode === inode));
      const attaching = AddressSpace.attach(calls, token as SpaceToken);
      await expect(attaching).rejects.toMatchObject({
        code: expect.stringMatching(/^(ESTALE|EPROTO|EBADF|ERR_OUT_OF_RANGE|ERR_INVALID_ARG_TYPE)$/),
      });
    });
    await fc.assert(isRefused, { numRuns: 300 });
  });

  it('of memory instead of a table is no table', async () => {
    const fd = space.descriptors[1]!;
    const token = { ...space.token, fd, inode: fstatSync(fd, { bigint: true }).ino };
    await expect(AddressSpace.attach(calls, token)).rejects.toMatchObject({ code: 'EPROTO' });
  });

  it('whose descriptor is another file by now is stale', async () => {
    const { token } = space;
    space.close();
    const opened: number[] = [];
    while (opened.at(-1) !== token.fd && opened.length < 64) opened.push(openSync('/dev/null', 'r'));
    expect(opened.at(-1)).toBe(token.fd);
    await expect(AddressSpace.attach(calls, token)).rejects.toMatchObject({
      code: 'ESTALE',
      message: expect.stringContaining(`descriptor ${token.fd} is not its table`),
    });
    for (const fd of opened) closeSync(fd);
  });

  it('of another process is refused there, which is told what to do', { timeout: 60_000 }, async () => {
    const { token } = space;
    const child = spawnChild('foreign-token', [JSON.stringify({ ...token, inode: String(token.inode) })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [said] = (await once(child.stdout!, 'data')) as [Buffer];
    expect(said.toString()).toContain(`ESTALE`);
    expect(said.toString()).toContain(`the token is of process ${process.pid}, and this is ${child.pid}`);
  });
});

describe('memory', () => {
  it('that somebody could shrink is not taken for a region', async () => {
    const loose = openSync(join(tmpdir(), `kvm-bridge-loose-${process.pid}`), 'w+');
    ftruncateSync(loose, UNIT);
    unlinkSync(join(tmpdir(), `kvm-bridge-loose-${process.pid}`));
    const { ino } = fstatSync(loose, { bigint: true });
    const copy = forgeTable(calls, space.fd, (view) => putRegion(view, 0, REGION.MEMORY, ino));
    await expect(AddressSpace.attach(calls, [copy, loose])).rejects.toMatchObject({
      code: 'EPROTO',
      message: expect.stringContaining('sealed against shrinking'),
    });
    closeSync(loose);
    calls.close(copy);
  });

  it('that can no longer be sealed is refused to be shared, and the region is made nowhere', () => {
    using other = Mapping.memfd(calls, UNIT);
    expect(calls.sharing!.addSeals(other.fd, SEAL.SEAL)).toBe(0);
    expect(() => space.addRam(8 * UNIT, other)).toThrow(
      expect.objectContaining({ code: 'EPERM', message: expect.stringContaining('cannot be any more') }),
    );
    expect(space.memoryRegions.length).toBe(2);
    expect(space.generation).toBe(2);
  });
});

describe('what has ended', () => {
  it('a view says why, as often as it is asked, and nothing reaches memory through it', async () => {
    const [low] = space.memoryRegions;
    const bindings = [space.bind({ name: 'own' }), await attachOver('other')];
    const views = bindings.map((binding) => binding.vmap(PAGE, 64, { write: true }));
    const arrays = views.map(({ bytes }) => bytes);
    const words = arrays.map((bytes) => new DataView(bytes.buffer, bytes.byteOffset, 8));
    low!.move(2 * UNIT);
    await space.settled();
    space.fill(2 * UNIT, 2 * PAGE, 0x11);
    for (const [i, view] of views.entries()) {
      for (let times = 0; times < 2; times++) {
        const why = expect.objectContaining({ code: 'EBADF', message: expect.stringContaining('was moved') });
        expect(() => view.bytes).toThrow(why);
        expect(() => view.flush()).toThrow(why);
        expect(view.pieces).toEqual([]);
        view.release();
      }
      expect(arrays[i]!.length).toBe(0);
      arrays[i]![0] = 0x99;
      expect(() => arrays[i]!.fill(0x99)).toThrow(TypeError);
      expect(() => words[i]!.setUint8(0, 0x99)).toThrow(TypeError);
    }
    expect([...space.readExact(2 * UNIT, 2 * PAGE)].every((byte) => byte === 0x11)).toBe(true);
    for (const binding of bindings) binding.release();
  });

  it('is released once, however often one says so: others’ descriptors and counts stay as they are', async () => {
    const [low] = space.memoryRegions;
    const pins = low!.mapping.pins;
    const own = space.bind();
    const attached = [
      await attachOver('over a connection'),
      await AddressSpace.attach(calls, space.token),
      await AddressSpace.attach(calls, space.descriptors),
    ];
    const staying = await attachOver('staying');
    const bindings = [own, ...attached];
    for (const binding of bindings) binding.vmap(0, 16, { write: true });
    for (const binding of bindings) binding.release();
    // The numbers that were given back are used again, and must not be closed a second time.
    const opened = Array.from({ length: 32 }, () => openSync('/dev/null', 'r'));
    for (const binding of bindings) {
      binding.release();
      binding[Symbol.dispose]();
      expect(() => binding.readU8(0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
      expect(() => binding.vmap(0, 1)).toThrow(expect.objectContaining({ code: 'EBADF' }));
      expect(() => binding.regions).toThrow(expect.objectContaining({ code: 'EBADF' }));
      expect(() => binding.translate(0)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    }
    for (const fd of opened) closeSync(fd);
    expect(low!.mapping.pins).toBe(pins);
    expect(space.consumers.map(({ name }) => name)).toEqual(['staying']);
    staying.writeU8(7, 7);
    expect(space.readU8(7)).toBe(7);
    staying.release();
  });
});

const why = compilerMissing === undefined ? '' : ` (${compilerMissing})`;

describe.skipIf(compilerMissing !== undefined)(
  `a table that another process changes while it is read${why}`,
  { timeout: 60_000 },
  () => {
    const program = compilerMissing === undefined ? compile('scribbler') : undefined;
    afterEach(() => {
      for (const child of scribblers.splice(0)) child.kill('SIGKILL');
    });
    const scribblers: ChildProcess[] = [];

    async function scribble(fd: number, seed: number): Promise<void> {
      const child = spawn(program!.path, [String(seed)], { stdio: ['ignore', 'pipe', 'inherit', fd] });
      scribblers.push(child);
      await once(child.stdout!, 'data');
    }

    const CODES = /^(EPROTO|EAGAIN|EFAULT|ENOSPC|EACCES|EBADF|ENOMEM)$/;
    function attempt(what: () => unknown): 'done' | 'refused' {
      try {
        what();
        return 'done';
      } catch (error) {
        expect(error).toBeInstanceOf(KvmError);
        expect((error as KvmError).code).toMatch(CODES);
        return 'refused';
      }
    }

    it('harms no consumer: each access is to memory of the space, or is refused with a reason', async () => {
      const copy = forgeTable(calls, space.fd);
      const bytes = Buffer.alloc(fstatSync(space.fd).size);
      readSync(space.fd, bytes, 0, bytes.length, 0);
      space.fill(0, UNIT, 0x11);
      space.fill(4 * UNIT, UNIT, 0x11);
      await scribble(copy, 1);
      const answers = { done: 0, refused: 0 };
      for (let round = 0; round < 60; round++) {
        // It comes as it was, and is written over while it is looked at.
        writeSync(copy, bytes, 0, 0x1_0000, 0);
        let binding: Binding | undefined;
        try {
          binding = await AddressSpace.attach(calls, [copy, ...space.descriptors.slice(1)]);
        } catch (error) {
          expect((error as KvmError).code).toMatch(CODES);
          answers.refused++;
          continue;
        }
        const here = binding;
        for (let i = 0; i < 20; i++) {
          writeSync(copy, bytes, 0, 0x1_0000, 0);
          answers[attempt(() => expect(here.readU8(i * PAGE)).toBe(0x11))]++;
          answers[attempt(() => here.writeU8(4 * UNIT + i * PAGE, 0x11))]++;
          answers[attempt(() => here.vmap(i * PAGE, 64, { write: true }))]++;
        }
        await turn();
        // Letting go is possible whatever the table says.
        here.release();
      }
      calls.close(copy);
      expect(answers.done).toBeGreaterThan(0);
      expect(answers.refused).toBeGreaterThan(0);
    });

    it('harms no consumer in C either, which ends with a reason', async () => {
      const consumer = compile('consumer');
      const ends: string[] = [];
      try {
        for (let round = 0; round < 12; round++) {
          const copy = forgeTable(calls, space.fd);
          const child = spawn(consumer.path, [String(round)], {
            stdio: ['ignore', 'ignore', 'pipe', copy, ...space.descriptors.slice(1)],
          });
          await scribble(copy, round);
          calls.close(copy);
          const { signal, stderr } = await ended(child);
          expect(signal).toBeNull();
          ends.push(stderr.trim());
        }
      } finally {
        consumer.remove();
      }
      expect([...new Set(ends)].filter((end) => !/^(attach|regions|map): /.test(end))).toEqual([]);
    });

    it('leaves a consumer who can no longer know where it wrote as one who died while writing', async () => {
      const events: ConsumerEvent[] = [];
      const other = new AddressSpace({ littleEndian: true, pageSize: PAGE });
      const ram = Mapping.memfd(calls, UNIT);
      other.addRam(0, ram);
      ram.close();
      other.share({ regions: 16, consumers: 8, end: 2 ** 31, onConsumer: (event) => events.push(event) });
      using vm = collector(other);
      const binding = await AddressSpace.attach(calls, other.token, { name: 'unsure' });
      const view = binding.vmap(0, 64, { write: true });
      // The other array, with a region that is empty; and then the generation that says so.
      const word = new BigUint64Array(1);
      readSync(other.fd, word, 0, 8, HEADER.GENERATION);
      writeSync(other.fd, Uint32Array.of(1, 1), 0, 8, HEADER.REGION_COUNT);
      writeSync(other.fd, BigUint64Array.of(word[0]! + 1n), 0, 8, HEADER.GENERATION);
      expect(attempt(() => binding.readU8(0))).toBe('refused');
      view.release();
      binding.release();
      await expect.poll(() => events).toMatchObject([{ kind: 'died', allDirty: true, consumer: { name: 'unsure' } }]);
      expect(vm.pages().length).toBe(UNIT / PAGE);
      other.close();
    });

    it('harms no owner: it believes nothing of it, and its changes, copies and dirty pages go on', async () => {
      using vm = collector(space);
      await scribble(space.fd, 2);
      const [low] = space.memoryRegions;
      for (let round = 0; round < 200; round++) {
        low!.move(((round + 1) % 2) * 2 * UNIT);
        space.writeU32(low!.start + 8, round);
        expect(space.readU32(low!.start + 8)).toBe(round);
        expect(vm.pages()).toContain(low!.start / PAGE);
        expect(space.consumers.length).toBeLessThanOrEqual(8);
        if (round % 20 === 0) await turn();
      }
      expect(space.generation).toBe(202);
      expect(space.memoryRegions.map(({ start, size }) => [start, size])).toEqual([
        [0, UNIT],
        [4 * UNIT, UNIT],
      ]);
    });
  },
);
