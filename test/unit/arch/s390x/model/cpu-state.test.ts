import { describe, expect, it } from 'vitest';
import { cpuState, type DatFacilities, datFeatures, featuresOf } from '../../../../../lib/arch/s390x/model/index.ts';
import { Kvm } from '../../../../../lib/index.ts';

describe('a CPU state', () => {
  it('has each register in two halves', () => {
    const { cr, ar, prefixPfn, pswMaskHi, pswMaskLo } = cpuState({
      pswMask: 0x0705_1001_8000_0000n,
      prefix: 0x7fff_e000,
      cr: { 0: 0x0102_0304_0506_0708n, 5: 0x1112_1314_1516_1718n, 15: 0x2122_2324_2526_2728n },
      ar: { 0: 1, 7: 0xffff_ffff, 15: 3 },
    });
    const expected = new Uint32Array(32);
    expected.set([0x0102_0304, 0x0506_0708], 0);
    expected.set([0x1112_1314, 0x1516_1718], 10);
    expected.set([0x2122_2324, 0x2526_2728], 30);
    expect(cr).toEqual(expected);
    expect([...ar]).toEqual([1, 0, 0, 0, 0, 0, 0, 0xffff_ffff, 0, 0, 0, 0, 0, 0, 0, 3]);
    expect([prefixPfn, pswMaskHi, pswMaskLo]).toEqual([0x7_fffe, 0x0705_1001, 0x8000_0000]);
  });

  it.each<[string, object]>([
    ['"prefix" is out of range. It must be a multiple of 8 KiB below 2 GiB. Received 4096', { prefix: 0x1000 }],
    ['"cr" is out of range. It must be a register of 0 to 15', { cr: { 16: 0 } }],
    ['"ar" is out of range. It must be a register of 0 to 15', { ar: { x: 0 } }],
    ['"cr[3]"', { cr: { 3: -1 } }],
    ['"ar[3]"', { ar: { 3: -1 } }],
    ['"facilities.edat1"', { facilities: { edat1: 1 } }],
    ['"facilities.edat2"', { facilities: { edat2: 'yes' } }],
    ['"facilities.iep"', { facilities: { iep: null } }],
  ])('says what is wrong: %s', (message, init) => {
    expect(() => cpuState(init)).toThrow(message);
  });

  it('made otherwise must have as many registers', () => {
    expect(() => featuresOf({ ...cpuState(), cr: new Uint32Array(16) })).toThrow('"cpu.cr.length"');
    expect(() => featuresOf({ ...cpuState(), ar: new Uint32Array(32) })).toThrow('"cpu.ar.length"');
  });
});

describe('the DAT features in force', () => {
  const [EDAT, IEP] = [0x80_0000, 0x10_0000];
  const [EDAT1_IS, EDAT2_IS, IEP_IS] = [1, 2, 4];

  // CR0 bit 40 enables enhanced DAT, bit 43 instruction-execution protection; EDAT-2 is there only with EDAT-1.
  it.each([
    [0, true, true, true, 0],
    [EDAT, true, true, true, EDAT1_IS | EDAT2_IS],
    [EDAT, true, false, true, EDAT1_IS],
    [EDAT, false, true, true, 0],
    [IEP, true, true, true, IEP_IS],
    [IEP, true, true, false, 0],
    [EDAT | IEP, true, true, true, EDAT1_IS | EDAT2_IS | IEP_IS],
    [~(EDAT | IEP), true, true, true, 0],
  ])('CR0 0x%x, EDAT-1 %s, EDAT-2 %s, IEP %s', (cr0, edat1, edat2, iep, expected) => {
    expect(datFeatures(cr0, { edat1, edat2, iep })).toBe(expected);
    expect(featuresOf(cpuState({ cr: { 0: cr0 >>> 0 }, facilities: { edat1, edat2, iep } }))).toBe(expected);
  });
});

it('facilities may be the getters of a class, which are read once, and those that are left out are there', () => {
  let reads = 0;
  class Old {
    get edat1(): boolean {
      return reads++ > 0;
    }
    get iep(): boolean {
      return false;
    }
  }
  const expected = { edat1: false, edat2: true, iep: false };
  expect(cpuState({ facilities: new Old() }).facilities).toEqual(expected);
  expect(reads).toBe(1);
  reads = 0;
  using kvm = Kvm.open({ arch: 's390x' });
  using vm = kvm.createVm();
  expect(vm.createVcpu().s390x.cpuState(new Old()).facilities).toEqual(expected);
  expect(reads).toBe(1);
  const left = { edat1: undefined } as unknown as DatFacilities;
  expect(cpuState({ facilities: left }).facilities).toEqual({ edat1: true, edat2: true, iep: true });
  // Of a machine, and not of an argument, all are told.
  expect(datFeatures(0x0090_0000, {} as DatFacilities)).toBe(0);
});
