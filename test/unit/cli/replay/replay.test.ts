import { describe, expect, it } from 'vitest';
import { bytesOfText, textOfBytes } from '../../../../lib/calls/format.ts';
import { Kvm } from '../../../../lib/index.ts';
import { replayed } from './traced.ts';

/** What a guest with a little of everything leaves in a trace. */
async function trace(): Promise<string[]> {
  const lines: string[] = [];
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', record: (line) => lines.push(line) });
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(0x10_000));
  const dirty = vm.dirtyPages.start();
  vm.memory.writeU32(0x3000, 0xcafe);
  const vcpu = vm.createVcpu();
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* () {
      yield { op: 'store', address: 0x5ffe, size: 4, value: 0x1234_5678n };
      yield { op: 'store', address: 0xd000_0000, size: 2, value: 0xbeefn };
      yield { op: 'out', port: 0x10, size: 1, value: 7n };
    })(),
  );
  vcpu.runSync();
  await vcpu.run();
  dirty.collect();
  vm.memory.readU32(0x5ffe);
  vm.close();
  kvm.close();
  return lines;
}

/** The line with such a call, changed. */
const changed = (lines: readonly string[], call: string, from: string, to: string): string[] =>
  lines.map((line) => (line.includes(`"call":"${call}"`) ? line.replace(from, to) : line));

describe('kvm-bridge replay', () => {
  it('ends with 0 where every answer is the same', async () => {
    const lines = await trace();
    expect(await replayed(lines)).toEqual({
      status: 0,
      err: '',
      out: `standard input: ${lines.length - 2} calls of an emulated x86_64 kernel 6.12\nreplayed on the emulated x86_64 kernel 6.12\nevery answer is the same\n`,
    });
  });

  it.each([
    ['a result', 'createVcpu', '"vcpu#1"}', '"-EEXIST"}', 'createVcpu(vm#1, 0)', '-EEXIST', 'a new one'],
    [
      'what a guest left',
      'getDirtyLog',
      '60',
      '20',
      'getDirtyLog(vm#1, 0, [00*8])',
      '0, bitmap [20 00*7]',
      '0, bitmap [60 00*7]',
    ],
    [
      'memory',
      'readMemory',
      '78563412',
      '78563413',
      'readMemory(map#1+0x5ffe, ',
      '4, into [78563413]',
      '4, into [78563412]',
    ],
  ])('tells of %s that is another, and ends with 1', async (_, call, from, to, text, recorded, emulated) => {
    const lines = changed(await trace(), call, from, to);
    const { status, out } = await replayed(lines);
    expect(status).toBe(1);
    expect(out).toContain(text);
    expect(out).toContain(`  traced   ${recorded}\n  emulated ${emulated}\n`);
  });

  it('asks the kernel that is wanted instead', async () => {
    const { status, out } = await replayed(await trace(), '--release', '6.1');
    expect(out).toContain('replayed on the emulated x86_64 kernel 6.1\n');
    expect(status).toBe(0);
    const other = await replayed(await trace(), '--arch', 'riscv64');
    expect(other.out).toContain('getVcpuMmapSize');
    expect(other.status).toBe(1);
  });

  it('tells all of it as JSON', async () => {
    const { out } = await replayed(changed(await trace(), 'createVcpu', '"vcpu#1"}', '"-EEXIST"}'), '--json');
    const { same, replays } = JSON.parse(out) as { same: boolean; replays: Record<string, unknown>[] };
    expect(same).toBe(false);
    expect(replays).toHaveLength(1);
    expect(replays[0]).toMatchObject({
      traced: { backend: 'emulated', arch: 'x86_64', release: '6.12', pageSize: 4096 },
      differences: [{ call: 'createVcpu(vm#1, 0)', recorded: '-EEXIST', emulated: 'a new one' }],
      // Whoever needs the vCPU is left out.
      notCompared: { 'vcpu#1 is not there': expect.any(Number) as number },
    });
  });

  it('replays each kernel that was opened by itself', async () => {
    const lines = await trace();
    expect((await replayed([...lines, ...lines])).out.match(/every answer is the same/g)).toHaveLength(2);
  });

  it.each([
    ['nothing', [], 'standard input: it is empty'],
    ['text', ['hello'], 'line 1: this is no trace: --trace-out FILE and Kvm.open({ record }) make one'],
    ['a call without a head', ['{"call":"openKvm","args":[]}'], "line 1: a call stands before the trace's head"],
    ['a later format', ['{"kvm-bridge-trace":2}'], 'line 1: the trace has format 2, and format 1 is read here'],
    [
      'no architecture',
      ['{"kvm-bridge-trace":1}'],
      'line 1: the trace does not say of which architecture it is: --arch takes one of',
    ],
    [
      'another one',
      ['{"kvm-bridge-trace":1,"emulate":{"arch":"mips"}}'],
      'line 1: the trace is of mips: --arch takes one of',
    ],
  ])('takes %s for no trace', async (_, lines, message) => {
    const { status, out, err } = await replayed(lines as string[]);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toContain(message);
  });

  it.each([
    ['{"call":"rm","args":[]}', 'there is no call rm'],
    ['{"call":"toString","args":[]}', 'there is no call toString'],
    ['{"call":"createVm","args":["kvm#1","0xzz"],"result":"vm#1"}', '"0xzz" is no number'],
    ['{"call":"setRegs","args":["kvm#1","00*99999999999"],"result":"0"}', 'there are more than 268435456 bytes'],
    ['{"call":"setRegs","args":["kvm#1","0g"],"result":"0"}', '"0g" is no bytes'],
    ['{"call":"eventfd","args":[-1],"result":"0"}', '"initial" is out of range'],
    ['{"call":"gather","args":[1,2,3],"result":"0"}', '1 is no list'],
    ['{"call":"openKvm"', 'JSON'],
    ['{"call":"run","args":["vcpu#1",0],"result":"0","after":{"map#2":[[1e9,"00"]]}}', 'is not there'],
  ])('refuses %s with its line', async (line, message) => {
    const [head = '', open = ''] = await trace();
    const { status, out, err } = await replayed([head, open, line]);
    expect(err + out).toContain(message);
    if (status === 2) expect(err).toContain('line 3');
  });
});

describe('bytes in a trace', () => {
  it.each([
    [[]],
    [[1]],
    [[0, 0, 0, 0, 0]],
    [[1, 2, 3, 255, 255, 255, 255, 4]],
    [Array.from({ length: 999 }, (_, i) => i & 255)],
  ])('are those that were written: %j', (bytes) => {
    expect([...bytesOfText(textOfBytes(Uint8Array.from(bytes)), 1000)]).toEqual(bytes);
  });
});

describe('calls that are recorded', () => {
  it('reach memory by calls alone, but for what vCPUs share with user space', () => {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', record: () => {} });
    const mapping = kvm.mapAnonymous(4096);
    expect(kvm.calls.view(mapping.hva, 4096)).toBe(-13);
    expect(kvm.calls.vmap(mapping.hva, 4096)).toBe(-13);
    const vm = kvm.createVm();
    vm.memory.addRam(0, mapping);
    expect(() => vm.memory.slice(0, 16)).toThrow(/EACCES/);
    expect(vm.createVcpu().kvmRun.exitReason).toBe(0);
  });
});
