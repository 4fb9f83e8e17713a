import { expect, it } from 'vitest';
import { fetchOverridePermits, formatStorageKeys } from '../../../../../lib/arch/s390x/model/index.ts';

it('keys are printed as QEMU’s dump-skeys does', () => {
  // "page=%03" PRIx64 ": key(%d) => ACC=%X, FP=%d, REF=%d, CH=%d": ACC is the high half of the byte, then F, R and C.
  expect([...formatStorageKeys(Uint8Array.of(0, 0xa8, 0x14, 0xf2), 0xffe)]).toEqual([
    'page=ffe: key(0) => ACC=0, FP=0, REF=0, CH=0',
    'page=fff: key(168) => ACC=A, FP=1, REF=0, CH=0',
    'page=1000: key(20) => ACC=1, FP=0, REF=1, CH=0',
    'page=1001: key(242) => ACC=F, FP=0, REF=0, CH=1',
  ]);
  expect([...formatStorageKeys(Uint8Array.of(0))]).toEqual(['page=000: key(0) => ACC=0, FP=0, REF=0, CH=0']);
  expect([...formatStorageKeys(new Uint8Array(0))]).toEqual([]);
});

it('an access that begins at 2048 is not below it, however short it is', () => {
  expect(fetchOverridePermits(0x0200_0000, false, 0, 2047, 0)).toBe(true);
  expect(fetchOverridePermits(0x0200_0000, false, 0, 2048, 0)).toBe(false);
});
