import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, describe, expect, it } from 'vitest';
import { cli } from '../../../../lib/cli/cli.ts';
import { readInput } from '../../../../lib/cli/input.ts';
import { readTrace } from '../../../../lib/cli/replay/read-trace.ts';
import type { ReportData } from '../../../../lib/cli/report/data.ts';
import { reportOfTrace } from '../../../../lib/cli/report/of-trace.ts';
import { Kvm } from '../../../../lib/index.ts';
import { type Arch, type GuestProgram, store } from '../../../../lib/raw.ts';
import { fakeIo } from '../fake-io.ts';

const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-report-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = join(folder, 'trace');

/** The report of what was done to a VM of an emulated kernel. */
async function traced(arch: Arch, act: (vm: ReturnType<Kvm['createVm']>, kvm: Kvm) => void): Promise<ReportData> {
  const lines: string[] = [];
  const kvm = Kvm.open({ backend: 'emulated', arch, record: (line: string) => lines.push(line) });
  act(kvm.createVm(), kvm);
  kvm.close();
  writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
  return await reportOfTrace(readTrace(readInput(file, fakeIo())), 'trace');
}

/** The data that a page has inside. */
const dataIn = (page: string): ReportData =>
  JSON.parse(gunzipSync(Buffer.from(/<script id="data"[^>]*>([^<]*)</.exec(page)![1]!, 'base64')).toString());

const layerNamed = (data: ReportData, name: string) => data.memory?.layers.find((layer) => layer.name === name);

describe.each<Arch>(['x86_64', 's390x'])('the report of a trace of %s', (arch) => {
  it('has the slots, each pass of dirty pages, and how often a page was dirty', async () => {
    const data = await traced(arch, (vm, kvm) => {
      vm.memory.addRam(0x10_0000, kvm.mapAnonymous(0x10_0000));
      vm.dirtyPages.start();
      for (const pages of [[0, 1, 2, 77], [1, 255], []]) {
        // Stores that the kernel itself sees.
        for (const page of pages) {
          if (arch === 's390x') vm.memOp.writeAbsolute(0x10_0000 + page * 4096, Uint8Array.of(1), { key: 0 });
          else vm.memory.markDirty(0x10_0000 + page * 4096, 1);
        }
        vm.dirtyPages.collect();
      }
    });
    expect(data.memory?.regions).toEqual([{ gpa: 0x10_0000, size: 0x10_0000, name: 'slot 0 at 0x100000' }]);
    expect(data.memory?.end).toBe(0x20_0000);
    if (arch !== 's390x') return;
    expect(layerNamed(data, 'dirty, pass 1')?.runs).toEqual([256, 3, 1, 333, 1, 1]);
    expect(layerNamed(data, 'dirty, pass 2')?.runs).toEqual([257, 1, 1, 511, 1, 1]);
    expect(layerNamed(data, 'dirty, pass 3')?.runs).toEqual([]);
    expect(layerNamed(data, 'dirty, all passes')?.runs).toEqual([
      256, 1, 1, 257, 1, 2, 258, 1, 1, 333, 1, 1, 511, 1, 1,
    ]);
  });
});

describe.each<Arch>(['x86_64', 'aarch64'])('the report of a trace with dirty rings, of %s', (arch) => {
  it('has what each reset gave back, wherever its memslot is, and how often a page was dirty', async () => {
    const data = await traced(arch, (vm, kvm) => {
      vm.enableDirtyRing(64 * 1024);
      vm.memory.addRam(0, kvm.mapAnonymous(0x10_0000));
      vm.memory.addRam(0x4000_0000, kvm.mapAnonymous(0x10_0000));
      const vcpus = [vm.createVcpu(), vm.createVcpu()];
      const guests = [
        [[0x3000, 0x4000, 0x4000_7000], [0x3000], [0x9000]],
        [[0x3000], [], [0x4000_7008]],
      ];
      for (const [n, passes] of guests.entries()) {
        const program = function* (): GuestProgram {
          for (const pages of passes) {
            for (const gpa of pages) yield store(gpa, 1, 1n);
            yield store(0xd000_0000, 1, 0n);
          }
        };
        kvm.emulated!.loadGuest(vcpus[n]!.fd, program());
      }
      vm.dirtyPages.start();
      for (let pass = 0; pass < 3; pass++) {
        for (const vcpu of vcpus) vcpu.runSync();
        vm.dirtyPages.collect();
      }
    });
    const high = 0x4_0007;
    expect(layerNamed(data, 'dirty, pass 1')?.runs).toEqual([3, 2, 1, high, 1, 1]);
    expect(layerNamed(data, 'dirty, pass 2')?.runs).toEqual([3, 1, 1]);
    expect(layerNamed(data, 'dirty, pass 3')?.runs).toEqual([9, 1, 1, high, 1, 1]);
    expect(layerNamed(data, 'dirty, all passes')?.runs).toEqual([3, 1, 2, 4, 1, 1, 9, 1, 1, high, 1, 2]);
  });
});

it('the report of a trace has the dirty pages of 1 TiB, by bitmaps and by rings', async () => {
  const [tib, far] = [2 ** 40, 2 ** 40 - 0x3000];
  for (const ring of [false, true]) {
    const data = await traced('x86_64', (vm, kvm) => {
      if (ring) vm.enableDirtyRing(64 * 1024);
      vm.memory.addRam(0, kvm.mapAnonymous(tib));
      const vcpu = vm.createVcpu();
      const program = function* (): GuestProgram {
        for (const gpa of [0x5000, far]) yield store(gpa, 1, 1n);
      };
      kvm.emulated!.loadGuest(vcpu.fd, program());
      const dirty = vm.dirtyPages.start();
      vcpu.runSync();
      expect([...dirty.collect().runs()]).toMatchObject([{ gfn: 5 }, { gfn: far / 4096 }]);
    });
    expect(data.memory?.end).toBe(tib);
    expect(layerNamed(data, 'dirty, pass 1')?.runs).toEqual([5, 1, 1, far / 4096, 1, 1]);
  }
});

it('the report of a trace has storage keys, and counts calls and their errors', async () => {
  const data = await traced('s390x', (vm, kvm) => {
    vm.memory.addRam(0, kvm.mapAnonymous(0x10_0000));
    vm.storageKeys.setBytes(3, Uint8Array.of(0x30, 0x30, 0x56));
    // The kernel looks at one byte of it.
    vm.calls.s390x!.setSkeys(vm.fd, 9n, 1n, 0, Uint8Array.of(0x20, 0x40));
    expect(() => vm.setUserMemoryRegion({ slot: 9, guestPhysAddr: 1, memorySize: 0x1000, userspaceAddr: 0 })).toThrow();
  });
  expect(layerNamed(data, 'storage keys')?.runs).toEqual([3, 2, 0x30, 5, 1, 0x56, 9, 1, 0x20]);
  const calls = data.tables[0]!.rows;
  expect(calls.map(([name]) => name)).toContain('setSkeys');
  expect(calls.find(([name]) => name === 'setUserMemoryRegion')).toEqual(['setUserMemoryRegion', 2, '-EINVAL: 1']);
});

it('what a guest stored is that of the VM whose vCPU ran', async () => {
  const calls = [
    { call: 'createVm', args: ['kvm#1', 0], result: 'vm#1' },
    { call: 'createVm', args: ['kvm#1', 0], result: 'vm#2' },
    { call: 'setUserMemoryRegion', args: ['vm#1', 0, 0, 0, 0x10000, 'map#1'], result: '0' },
    { call: 'setUserMemoryRegion', args: ['vm#2', 0, 0, 0, 0x10000, 'map#2'], result: '0' },
    { call: 'setUserMemoryRegion', args: ['vm#2', 1, 0, 0x20000, 0x10000, 'map#3'], result: '0' },
    { call: 'createVcpu', args: ['vm#1', 0], result: 'vcpu#1' },
    { call: 'createVcpu', args: ['vm#2', 0], result: 'vcpu#2' },
    { call: 'run', args: ['vcpu#1', 0], result: '0', stores: [[0x1000, '01*8']] },
    { call: 'run', args: ['vcpu#2', 0], result: '0', stores: [[0x4ffc, '02*8']] },
  ];
  writeFileSync(file, calls.map((call) => `${JSON.stringify(call)}\n`).join(''));
  const data = await reportOfTrace(readTrace(readInput(file, fakeIo())), 'trace');
  expect(data.about).toContain('2 VMs, of which vm#2 is shown: it had the most slots');
  expect(layerNamed(data, 'stored by the guest')?.runs).toEqual([4, 2, 1]);
});

describe('kvm-bridge report', () => {
  let input: string | undefined;
  const run = async (...argv: string[]) => {
    const io = fakeIo({ input });
    return { status: await cli(['report', ...argv], io), out: io.out(), err: io.err() };
  };

  it('says where the page is, or is the page', async () => {
    await traced('x86_64', () => {});
    const out = join(folder, 'out.html');
    const written = await run(file, '-o', out);
    expect(written).toMatchObject({ status: 0, out: '' });
    expect(written.err).toMatch(/out\.html: \d.* KiB/);
    expect((await run(file)).out).toMatch(/^<!doctype html>/);
  });

  it('reads standard input', async () => {
    await traced('x86_64', (vm, kvm) => vm.memory.addRam(0, kvm.mapAnonymous(1 << 20)));
    input = readFileSync(file, 'utf8');
    const [piped, named] = [await run('-'), await run(file)];
    expect(piped).toMatchObject({ status: 0, err: '' });
    expect(dataIn(piped.out)).toEqual({ ...dataIn(named.out), title: 'standard input' });
    input = 'neither';
    expect(await run('-')).toMatchObject({
      status: 2,
      err: expect.stringMatching(/^kvm-bridge report: standard input: /),
    });
    input = undefined;
  });

  const recordAt = (address: bigint): Buffer => {
    const record = Buffer.alloc(8 + 4096);
    record.writeBigUInt64BE(address);
    return record;
  };

  it.each([
    ['capture.json', '{', /capture\.json is damaged: /],
    ['capture.json', '{"memory":"much"}', /capture\.json is damaged: memory is "much", and no number as text/],
    ['capture.json', '[]', /capture\.json is damaged: it is \[\], and no object/],
    ['capture.json', 'null', /capture\.json is damaged: it is null, and no object/],
    ['capture.json', '{"kernel":5}', /capture\.json is damaged: kernel is 5, and no text/],
    ['capture.json', '{"cpus":3}', /capture\.json is damaged: cpus is 3, and no list/],
    ['capture.json', '{"slb":[{"esid":"0x1"}]}', /capture\.json is damaged: there is no slb\[0\]\.vsid/],
    ['capture.json', '{"cpus":[{}]}', /capture\.json is damaged: there is no cpus\[0\]\.psw\n/],
    ['capture.json', '{"memory":"0x1000000000000"}', /capture\.json is damaged: .* 0x1000000000000 bytes of memory/],
    ['capture.json', '{"memory":"1"}', /capture\.json is damaged: .* 0x1 bytes of memory/],
    ['pages.bin', recordAt(1n), /pages\.bin is damaged: 0x1 is the address of no page/],
    ['pages.bin', recordAt(1n << 44n), /capture\.json is damaged: .* bytes of memory/],
    ['pages.bin', 'x', /pages\.bin is damaged: 1 byte is no records of 4104/],
    ['htab.stream', 'x', /htab\.stream is damaged: /],
    ['skeys.bin.gz', Buffer.of(0x1f, 0x8b, 8), /skeys\.bin\.gz: the gzipped data ends too early: the file is cut off/],
    [
      'skeys.bin.gz',
      Buffer.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 7, 7),
      /skeys\.bin\.gz: the gzipped data is damaged/,
    ],
  ])('says which file of a capture is damaged, as --load does: %s, %j', async (name, content, why) => {
    const capture = mkdtempSync(join(folder, 'capture-'));
    writeFileSync(join(capture, 'capture.json'), '{}');
    writeFileSync(join(capture, 'pages.bin'), '');
    writeFileSync(join(capture, name), content);
    expect(await run(capture)).toMatchObject({ status: 2, err: expect.stringMatching(why) });
    const io = fakeIo();
    expect(await cli(['--load', capture], io)).toBe(2);
    expect(io.err()).toMatch(why);
  });

  it('says that a page of a capture is outside of its memory, as --load does', async () => {
    const capture = mkdtempSync(join(folder, 'capture-'));
    writeFileSync(join(capture, 'capture.json'), '{"memory":"0x100000"}');
    writeFileSync(join(capture, 'pages.bin'), recordAt(0x10_0000n));
    const why = /capture\.json is damaged: a page ends at 0x101000, and memory at 0x100000/;
    expect(await run(capture)).toMatchObject({ status: 2, err: expect.stringMatching(why) });
    const io = fakeIo();
    expect(await cli(['--load', capture], io)).toBe(2);
    expect(io.err()).toMatch(why);
  });

  it('unpacks no more of a capture than it can be', async () => {
    const capture = mkdtempSync(join(folder, 'capture-'));
    writeFileSync(join(capture, 'capture.json'), '{}');
    writeFileSync(join(capture, 'pages.bin'), '');
    const packed = gzipSync(Buffer.alloc(128 << 20));
    writeFileSync(join(capture, 'skeys.bin.gz'), Buffer.concat(Array.from({ length: 9 }, () => packed)));
    expect(await run(capture)).toMatchObject({
      status: 2,
      err: expect.stringMatching(/skeys\.bin\.gz is damaged: .*larger than/),
    });
  });

  it('says what is wrong with a file', async () => {
    writeFileSync(file, '{"kvm-bridge-trace":1}\nnonsense\n');
    expect(await run(file)).toMatchObject({
      status: 2,
      err: expect.stringContaining(`kvm-bridge report: ${file}: line 2: `),
    });
    const head = '{"kvm-bridge-trace":1,"arch":"x86_64","pageSize":4096}';
    for (const [event, why] of [
      ['{"call":"setSkeys","args":["vm#1",0,1,0,"zz"],"result":"0"}', 'line 2: "zz" is no bytes'],
      ['{"call":"setUserMemoryRegion","args":["vm#1",0,0,-1,1.5,"x"],"result":"0"}', 'line 2: -1 is no address'],
      ['{"call":"setUserMemoryRegion","args":["vm#1"],"result":"0"}', 'line 2: undefined is no address'],
    ]) {
      writeFileSync(file, `${head}\n${event}\n`);
      expect(await run(file)).toMatchObject({
        status: 2,
        err: expect.stringContaining(`kvm-bridge report: ${file}: ${why}`),
      });
    }
    writeFileSync(file, 'neither');
    expect(await run(file)).toMatchObject({ status: 2, err: expect.stringMatching(/^kvm-bridge report: .*trace: /) });
    expect(await run(join(folder, 'nowhere'))).toMatchObject({ status: 2, err: expect.stringMatching(/ENOENT/) });
    expect(await run(folder)).toMatchObject({ status: 2, err: expect.stringMatching(/holds no capture/) });
    expect(await run()).toMatchObject({ status: 2 });
  });
});
