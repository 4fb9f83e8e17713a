import { expect, it } from 'vitest';
import { cli } from '../../../../lib/cli/cli.ts';
import { fakeIo } from '../fake-io.ts';

const HEAD = '{"kvm-bridge-trace":1,"backend":"emulated","arch":"x86_64","emulate":{"arch":"x86_64"}}';
const RUN = '00*67108864';
const mapped = (i: number) => [
  `{"call":"mmap","args":[67108864,3,34,-1,0,0,0],"result":"map#${i}"}`,
  `{"call":"writeMemory","args":["map#${i}","${RUN}"],"result":"67108864"}`,
];
const opened = [
  '{"call":"openKvm","args":[],"result":"kvm#1"}',
  '{"call":"createVm","args":["kvm#1",0],"result":"vm#1"}',
  '{"call":"createVcpu","args":["vm#1",0],"result":"vcpu#1"}',
];
const stored = `{"call":"run","args":["vcpu#1",0],"stores":[[0,"${RUN}"]],"result":"-EINTR"}`;

async function replay(lines: readonly string[]) {
  const io = fakeIo({ input: lines.join('\n') });
  return { status: await cli(['replay', '-'], io), err: io.err() };
}

it.each([
  [
    'written, also by kernels that are opened one after the other',
    Array.from({ length: 400 }, (_, i) => [HEAD, ...mapped(i)]).flat(),
    51,
  ],
  [
    'filled',
    [
      HEAD,
      ...Array.from(
        { length: 400 },
        () => `{"call":"getDirtyLog","args":["vm#1",0,"${RUN}"],"result":"0","filled":{"bitmap":"${RUN}"}}`,
      ),
    ],
    10,
  ],
  [
    'of a kvm_run area',
    [
      HEAD,
      ...Array.from(
        { length: 400 },
        () => `{"call":"run","args":["vcpu#1",0],"after":{"map#1":[[0,"${RUN}"]]},"result":"0"}`,
      ),
    ],
    18,
  ],
  ['stored by guests', [HEAD, ...opened, ...Array.from({ length: 400 }, () => stored)], 7],
] as const)(
  'what all lines of a trace stand for is bounded: bytes that are %s',
  { timeout: 60_000 },
  async (_what, lines, line) => {
    const { status, err } = await replay(lines);
    expect([status, err]).toEqual([
      2,
      expect.stringContaining(`line ${line}: up to here runs stand for more than 1073741824 bytes`),
    ]);
  },
);

it('bytes that stand there in full are as many as the file has', async () => {
  const { status } = await replay([
    HEAD,
    '{"call":"mmap","args":[65536,3,34,-1,0,0,0],"result":"map#1"}',
    ...Array.from(
      { length: 200 },
      () => `{"call":"writeMemory","args":["map#1","${'5a'.repeat(4096)}"],"result":"4096"}`,
    ),
  ]);
  expect(status).toBe(0);
});
