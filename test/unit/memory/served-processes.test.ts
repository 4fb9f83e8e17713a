import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { Kvm, Mapping, PageFaults, TrackedWrites } from '../../../lib/index.ts';
import { type ChildResult, runNode } from '../native/real.ts';
import { requireGuests, requireRoot, trackingKernel } from './uffd-host.ts';

const url = (path: string): string => JSON.stringify(new URL(`../../../${path}`, import.meta.url).href);

/** A program over the public API with a guest of x86_64 that stores to page 8, in a process of its own. */
function program(text: string): ChildResult {
  return runNode([
    '--expose-gc',
    '--import',
    new URL('../../typescript/register.mjs', import.meta.url).href,
    '--input-type=module',
    '-e',
    `import { AddressSpace, Kvm, Mapping, PageFaults } from ${url('lib/index.ts')};
     import { loadNative } from ${url('lib/raw.ts')};
     import { loadStores } from ${url('test/unit/handles/guests.ts')};
     const { calls } = loadNative();
     const page = calls.pageSize;
     const guestOf = () => {
       const kvm = Kvm.open({ backend: 'native' });
       const ram = kvm.mapAnonymous(16 * page);
       const vm = kvm.createVm();
       vm.memory.addRam(0, ram);
       const vcpu = vm.createVcpu();
       loadStores(kvm, vm, vcpu, [8 * page]);
       return { kvm, vm, vcpu, ram };
     };
     ${text}`,
  ]);
}

describe('a process that serves pages', { timeout: 60_000 }, () => {
  it('lives until that is closed, and ends in the middle of it', (test) => {
    trackingKernel(test);
    const ram = 'const ram = Mapping.anonymous(calls, 16 * page);';
    const closed = program(
      `${ram} const faults = new PageFaults(ram, { missing: () => null });
       setTimeout(() => { console.log('still'); faults.close(); }, 50);`,
    );
    expect([closed.stdout, closed.status]).toEqual(['still\n', 0]);
    const ended = program(
      `${ram} new PageFaults(ram, { missing: () => null }); setTimeout(() => process.exit(7), 20);`,
    );
    expect([ended.stderr, ended.status]).toEqual(['', 7]);
  });

  it('ends while a guest waits for a page', (test) => {
    requireGuests(test);
    const waiting = program(
      `const { vcpu, ram } = guestOf();
       new PageFaults(ram, { missing: () => { setTimeout(() => process.exit(8), 50); return new Promise(() => {}); } });
       vcpu.run();`,
    );
    expect([waiting.stderr, waiting.status]).toEqual(['', 8]);
  });

  it('names /dev/userfaultfd to a user without the right', (test) => {
    trackingKernel(test);
    requireRoot(test);
    const child = program(
      `const ram = Mapping.anonymous(calls, 16 * page);
       process.setgid(65534); process.setuid(65534);
       try { new PageFaults(ram, { missing: () => null }); } catch (error) { console.log(error.code, error.explanation); }`,
    );
    expect(child.stdout).toMatch(/^EPERM .*\/dev\/userfaultfd/);
  });
});

describe('while pages are served', { timeout: 60_000 }, () => {
  it('a handler that throws, without onError, is an uncaught exception of the process', (test) => {
    requireGuests(test);
    const { status, signal, stderr } = program(
      `const { vcpu, ram } = guestOf();
       new PageFaults(ram, { missing: () => { throw new Error('of the handler'); } });
       vcpu.run();`,
    );
    expect([status, signal]).toEqual([1, null]);
    expect(stderr).toContain('Error: of the handler');
  });

  it('what uncaughtException hears goes on: the guest waits, and gets its page', (test) => {
    requireGuests(test);
    const { status, stdout, stderr } = program(
      `const { vm, vcpu, ram } = guestOf();
       const faults = new PageFaults(ram, { missing: async () => { throw new Error('of the handler'); } });
       process.once('uncaughtException', ({ message }) => { console.log(message); faults.zero(8 * page, page); });
       await vcpu.run();
       faults.close();
       console.log(vm.memory.readU8(8 * page));`,
    );
    expect([stdout, stderr, status]).toEqual(['of the handler\n65\n', '', 0]);
  });

  it('the collector takes nothing that somebody may still ask', (test) => {
    trackingKernel(test);
    const { status, stdout, stderr } = program(
      `const space = new AddressSpace({ littleEndian: true, pageSize: page });
       (() => {
         const ram = Mapping.anonymous(calls, 16 * page);
         space.addRam(0, ram);
         new PageFaults(ram, { missing: ({ offset }) => new Uint8Array(page).fill(offset / page) });
       })();
       for (let i = 0; i < 5; i++) { gc(); await new Promise((turn) => setImmediate(turn)); }
       console.log(space.readU8(3 * page), space.readU8(4 * page));
       process.exit(0);`,
    );
    expect([stdout, stderr, status]).toEqual(['3 4\n', '', 0]);
  });

  // Each thread compiles lib for itself.
  it('a worker may end, with a guest that waits for a page for ever', (test) => {
    requireGuests(test);
    const { status, stdout, stderr } = program(
      `import { readdirSync } from 'node:fs';
       import { once } from 'node:events';
       import { Worker } from 'node:worker_threads';
       const descriptors = () => readdirSync('/proc/self/fd').length;
       // What Node keeps from its first worker is Node's.
       await once(new Worker('', { eval: true, execArgv: [] }), 'exit');
       const before = descriptors();
       for (const how of ['terminate', 'exit']) {
         const worker = new Worker(
           \`const { parentPort, workerData: { register, lib, guests, how } } = require('node:worker_threads');
            (async () => {
              await import(register);
              const { Kvm, PageFaults } = await import(lib);
              const { loadStores } = await import(guests);
              const kvm = Kvm.open({ backend: 'native' });
              const ram = kvm.mapMemfd(16 * kvm.pageSize);
              const vm = kvm.createVm();
              vm.memory.addRam(0, ram);
              const vcpu = vm.createVcpu();
              loadStores(kvm, vm, vcpu, [8 * kvm.pageSize]);
              new PageFaults(ram, { missing: () => {
                parentPort.postMessage('asked');
                if (how === 'exit') setTimeout(() => process.exit(0), 20);
                return new Promise(() => {});
              } });
              vcpu.run();
            })();\`,
           { eval: true, execArgv: [], workerData: {
             how, register: ${url('test/typescript/register.mjs')}, lib: ${url('lib/index.ts')}, guests: ${url('test/unit/handles/guests.ts')},
           } },
         );
         const ended = once(worker, 'exit');
         console.log((await once(worker, 'message'))[0]);
         const start = performance.now();
         if (how === 'terminate') await worker.terminate();
         await ended;
         if (performance.now() - start > 10_000) console.log('it took', performance.now() - start);
       }
       for (let i = 0; i < 50 && descriptors() > before; i++) await new Promise((turn) => setTimeout(turn, 50));
       if (descriptors() > before) console.log(before, 'descriptors became', descriptors());`,
    );
    expect([stdout, stderr, status]).toEqual(['asked\nasked\n', '', 0]);
  });

  it('processes are started, in the middle of a handler too, and nothing is lost', (test) => {
    const calls = trackingKernel(test);
    const page = calls.pageSize;
    using ram = Mapping.anonymous(calls, 16 * page);
    using tracked = Mapping.anonymous(calls, 16 * page);
    using writes = new TrackedWrites(tracked);
    const asked: number[] = [];
    using _faults = new PageFaults(ram, {
      missing: ({ offset }) => {
        asked.push(offset / page);
        expect(spawnSync('true').status).toBe(0);
        return new Uint8Array(page).fill(offset / page);
      },
    });
    const byte = new Uint8Array(1);
    tracked.write(page, byte);
    for (const number of [3, 4, 3]) {
      ram.read(number * page, byte);
      expect(byte[0]).toBe(number);
    }
    tracked.write(2 * page, byte);
    expect(asked).toEqual([3, 4]);
    expect(writes.collect().runs()).toEqual([{ offset: page, length: 2 * page }]);
    expect(spawnSync('true').status).toBe(0);
    tracked.write(2 * page, byte);
    expect(writes.collect().runs()).toEqual([{ offset: 2 * page, length: page }]);
  });
});

describe('memory of other kinds', () => {
  it.each<[string, (kvm: Kvm) => Mapping]>([
    ['hugetlb', (kvm) => kvm.mapHugetlb(0x20_0000)],
    ['file', (kvm) => kvm.mapFile(process.execPath, { prot: 1, size: 4096, shared: false })],
    ['reservation', (kvm) => kvm.reserve(4096)],
  ])('has no handlers: %s', (kind, make) => {
    using kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    using memory = make(kvm);
    expect(() => new PageFaults(memory, { missing: () => null })).toThrow(
      expect.objectContaining({ code: 'EINVAL', explanation: expect.stringContaining(`this mapping is ${kind}`) }),
    );
    expect(memory.pins).toBe(0);
  });
});
