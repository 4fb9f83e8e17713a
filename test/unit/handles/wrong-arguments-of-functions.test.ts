import { afterAll, describe, expect, it } from 'vitest';
import * as ppc64 from '../../../lib/arch/ppc64/model/index.ts';
import * as s390x from '../../../lib/arch/s390x/model/index.ts';
import { AddressSpace, Kvm } from '../../../lib/index.ts';
import { openCalls } from '../../../lib/raw.ts';
import { type Arena, type Arguments, attack } from './attack.ts';

const bytes = (length: number): Uint8Array => new Uint8Array(length);
const ARENA: Arena<object> = {
  make: () => ({}),
  close: () => {},
  state: () => 0,
  verify: () => {},
  leftOf: () => undefined,
  sabotage: {},
};

type Functions = Readonly<Record<string, readonly [call: (...args: never[]) => unknown, args: () => Arguments]>>;

const opening = (): Arguments => ({
  options: { backend: 'emulated', arch: 'x86_64', release: '6.12', pageSize: 4096, trace: () => {} },
});

const OPENING: Functions = {
  'Kvm.open': [(options: never) => Kvm.open(options).close(), opening],
  openCalls: [openCalls, opening],
  'new AddressSpace': [
    (options: never) => new AddressSpace(options),
    () => ({ options: { littleEndian: true, pageSize: 4096 } }),
  ],
};

const S390X: Functions = {
  decodeAsce: [s390x.decodeAsce, () => ({ asce: 0 })],
  cpuState: [s390x.cpuState, () => ({ init: { pswMask: 0, prefix: 0 } })],
  memoryOfBytes: [s390x.memoryOfBytes, () => ({ bytes: bytes(4096) })],
  memoryOfFrames: [s390x.memoryOfFrames, () => ({ frame: () => undefined })],
  decodePswMask: [s390x.decodePswMask, () => ({ mask: 0 })],
  effectiveAddress: [s390x.effectiveAddress, () => ({ pswMask: 0, address: 0 })],
  encodeStorageKey: [
    (key: never) => s390x.encodeStorageKey(key),
    () => ({ key: { acc: 0, fetchProtection: false, reference: false, change: false } }),
  ],
  formatStorageKeys: [s390x.formatStorageKeys, () => ({ keys: bytes(2), firstGfn: 0 })],
  decodeTeid: [s390x.decodeTeid, () => ({ teid: 0n })],
};

const PPC64: Functions = {
  hpte: [ppc64.hpte, () => ({ v: 0, r: 0 })],
  'new Htab': [(order: never) => new ppc64.Htab(order), () => ({ order: 18 })],
  segment: [ppc64.segment, () => ({ esidWord: 0, vsidWord: 0 })],
  slbOfSregs: [ppc64.slbOfSregs, () => ({ sregs: bytes(1096) })],
  decodeSmmuInfo: [ppc64.decodeSmmuInfo, () => ({ bytes: bytes(1000), littleEndian: true })],
  htabChunks: [ppc64.htabChunks, () => ({ bytes: bytes(0), format: { headers: 'little', entryCount: 8 } })],
  checkHtabStream: [ppc64.checkHtabStream, () => ({ bytes: bytes(0), format: { headers: 'little', entryCount: 8 } })],
  applyHtabStream: [
    ppc64.applyHtabStream,
    () => ({ table: new ppc64.Htab(18), bytes: bytes(0), format: { headers: 'little' } }),
  ],
  decodeHtabStream: [ppc64.decodeHtabStream, () => ({ bytes: bytes(0), options: { headers: 'little', order: 18 } })],
  encodeHtabStream: [
    ppc64.encodeHtabStream,
    () => ({ table: new ppc64.Htab(18), options: { headers: 'little', from: 0, to: 8, boltedOnly: false } }),
  ],
};

let total = 0;
afterAll(() => console.log(`${total} calls of functions with one thing wrong`));

describe.each(Object.entries({ OPENING, S390X, PPC64 }))('wrong arguments of functions: %s', (_group, functions) => {
  it.each(Object.entries(functions))('%s', async (name, [call, args]) => {
    const target = {
      name,
      args,
      related: {},
      call: (_: object, given: readonly unknown[]) => call(...(given as never[])),
    };
    const { faults, tried } = await attack(ARENA, target);
    total += tried;
    expect(faults).toEqual([]);
    expect(tried).toBeGreaterThan(30);
  });
});
