import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as codec from '../../../lib/vhost-user/message.ts';
import { REQUEST } from '../../../lib/vhost-user/protocol.ts';

const address = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const entry = fc.record({ gpa: address, size: address, userAddress: address, mmapOffset: address });

describe('a payload', () => {
  type Case = readonly [what: string, says: () => void];
  function holding<T>(
    what: string,
    values: fc.Arbitrary<T>,
    encode: (value: T) => Uint8Array,
    decode: (request: number, payload: Uint8Array) => unknown,
  ): Case {
    const isKept = fc.property(values, (value) => {
      expect(decode(REQUEST.SET_MEM_TABLE, encode(value))).toEqual(value);
    });
    return [what, () => fc.assert(isKept)];
  }

  const u16 = fc.integer({ min: 0, max: 0xffff });
  const rings = { index: u32, flags: u32, desc: address, used: address, avail: address, log: address };
  const area = { size: address, offset: address };
  it.each<Case>([
    holding('a queue state', fc.record({ index: u32, num: u32 }), codec.encodeVringState, codec.decodeVringState),
    holding(
      'a queue descriptor',
      fc.record({ index: fc.integer({ min: 0, max: 255 }), hasDescriptor: fc.boolean() }),
      codec.encodeVringDescriptor,
      codec.decodeVringDescriptor,
    ),
    holding('queue addresses', fc.record(rings), codec.encodeVringAddresses, codec.decodeVringAddresses),
    holding('a memory table', fc.array(entry, { maxLength: 8 }), codec.encodeMemoryTable, codec.decodeMemoryTable),
    holding('a memory region', entry, codec.encodeMemoryRegion, codec.decodeMemoryRegion),
    holding('a log area', fc.record(area), codec.encodeLogArea, codec.decodeLogArea),
    holding(
      'an in-flight area',
      fc.record({ ...area, queues: u16, queueSize: u16 }),
      codec.encodeInflight,
      codec.decodeInflight,
    ),
  ])('that holds %s says the same when it is read', (_what, says) => says());

  it('of any bytes is decoded, or refused with what is wrong', () => {
    const decoders = [
      codec.decodeU64,
      codec.decodeVringState,
      codec.decodeVringAddresses,
      codec.decodeVringDescriptor,
      codec.decodeMemoryTable,
      codec.decodeMemoryRegion,
      codec.decodeLogArea,
      codec.decodeConfig,
      codec.decodeInflight,
    ];
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.constantFrom(...decoders), (payload, decode) => {
        try {
          decode(REQUEST.SET_LOG_BASE, payload);
        } catch (error) {
          expect(error).toMatchObject({ code: 'EPROTO', syscall: 'vhost-user SET_LOG_BASE' });
        }
      }),
    );
  });

  it.each([
    ['too short', () => codec.decodeU64(REQUEST.SET_FEATURES, new Uint8Array(7)), 'ends after 7 bytes'],
    ['too long', () => codec.decodeU64(REQUEST.SET_FEATURES, new Uint8Array(9)), '1 of 9 bytes are too many'],
    [
      'of more regions than it has',
      () => codec.decodeMemoryTable(REQUEST.SET_MEM_TABLE, Uint8Array.of(255, 0, 0, 0, 0, 0, 0, 0)),
      '255 regions, and room for 0 in 8 bytes',
    ],
    [
      'with an address of 2^64 - 1',
      () => codec.decodeLogArea(REQUEST.SET_LOG_BASE, new Uint8Array(16).fill(255)),
      '0xffffffffffffffff is 2^53 or more',
    ],
    [
      'whose configuration is shorter than it says',
      () =>
        codec.decodeConfig(
          REQUEST.GET_CONFIG,
          codec.encodeConfig({ offset: 0, size: 9, flags: 0, bytes: new Uint8Array(8) }),
        ),
      'it says that 9 bytes come along, and 8 do',
    ],
  ])('%s is refused', (_what, decode, why) => {
    expect(decode).toThrow(why);
  });
});

it('a header of another version, or with a payload of a gigabyte, is refused before anything of it is read', () => {
  const header = codec.encodeMessage(REQUEST.SET_MEM_TABLE, 8, new Uint8Array(16)).subarray(0, 12);
  expect(codec.decodeHeader(header)).toEqual({ request: REQUEST.SET_MEM_TABLE, flags: 8, size: 16 });
  const other = (at: number, value: number) => {
    const bytes = Uint8Array.from(header);
    new DataView(bytes.buffer).setUint32(at, value, true);
    return () => codec.decodeHeader(bytes);
  };
  expect(other(4, 2)).toThrow('the version is 2, not 1');
  expect(other(8, 2 ** 30)).toThrow('a payload of 1073741824 bytes');
});
