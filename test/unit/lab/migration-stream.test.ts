import { describe, expect, it } from 'vitest';
import { readPseriesStream } from '../../lab/capture/migration-stream.ts';

// Streams put together from the form that QEMU's migration has: big-endian, sections with a head and a foot.

const u16 = (value: number) => Buffer.from([value >> 8, value & 0xff]);
const u32 = (value: number) => Buffer.concat([u16(value >>> 16), u16(value & 0xffff)]);
const u64 = (value: number) => Buffer.concat([u32(Math.floor(value / 2 ** 32)), u32(value >>> 0)]);
const text = (value: string) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);

const START = 1;
const PART = 2;
const END = 3;

function section(kind: number, id: number, name: string, ...content: Uint8Array[]): Buffer {
  const head = kind === START ? [text(name), u32(0), u32(4)] : [];
  return Buffer.concat([Buffer.from([kind]), u32(id), ...head, ...content, Buffer.from([0x7e]), u32(id)]);
}

const HEAD = Buffer.concat([u32(0x5145_564d), u32(3), Buffer.from([7]), u32(2), Buffer.from('ps')]);
const RAM = 'ppc_spapr.ram';
const EOS = u64(0x10);
const entry = (fill: number) => new Uint8Array(16).fill(fill);

const STREAM = Buffer.concat([
  HEAD,
  section(START, 1, 'ram', u64(0x2000 | 0x04), text(RAM), u64(0x2000), EOS),
  section(START, 2, 'spapr/htab', u32(18)),
  section(PART, 1, 'ram', u64(0x08), text(RAM), Buffer.alloc(4096, 0xa1), EOS),
  // The block of the last page goes on in the next section.
  section(PART, 1, 'ram', u64(0x1000 | 0x08 | 0x20), Buffer.alloc(4096, 0xa2), EOS),
  section(PART, 2, 'spapr/htab', u32(0), u32(8), u16(2), u16(1), entry(0x11), entry(0x22), u32(0), u16(0), u16(0)),
  section(END, 1, 'ram', u64(0x02 | 0x20), Buffer.from([0]), EOS),
  section(END, 2, 'spapr/htab', u32(0), u32(9), u16(0), u16(1), u32(0), u16(0), u16(0)),
]);

describe("the stream of QEMU's migration", () => {
  it('gives the table, with what later passes say of it', () => {
    const { table } = readPseriesStream(STREAM);
    expect(table.order).toBe(18);
    expect([...table.bytes.subarray(8 * 16, 9 * 16)]).toEqual([...entry(0x11)]);
    expect([...table.bytes.subarray(9 * 16, 10 * 16)]).toEqual([...entry(0)]);
  });

  it('gives the pages as they were sent last', () => {
    const { page } = readPseriesStream(STREAM);
    expect(page(0n)?.[0]).toBe(0);
    expect(page(0x1000n)).toHaveLength(4096);
    expect(page(0x1000n)?.[4095]).toBe(0xa2);
    expect(page(0x2000n)).toBeUndefined();
  });

  it.each([
    ['is none', Buffer.alloc(64), /no stream/],
    ['is cut off', STREAM.subarray(0, STREAM.length - 3), /cut off/],
    ['has a section that is not expected', Buffer.concat([HEAD, section(START, 1, 'slirp')]), /unknown section slirp/],
    [
      'has entries beyond the table',
      Buffer.concat([
        HEAD,
        section(START, 2, 'spapr/htab', u32(18)),
        section(PART, 2, '', u32(0), u32(0x3fff), u16(0), u16(2)),
      ]),
      /exceeds its own size/,
    ],
    [
      'has a section that does not end',
      Buffer.concat([HEAD, Buffer.from([START]), u32(2), text('spapr/htab'), u32(0), u32(4), u32(18), u32(9), u32(9)]),
      /does not end where it should/,
    ],
  ])('that %s is refused', (_, stream, message) => {
    expect(() => readPseriesStream(stream)).toThrow(message);
  });
});
