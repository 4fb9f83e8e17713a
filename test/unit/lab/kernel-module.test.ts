import { describe, expect, it } from 'vitest';
import { ElfObject } from '../../../lib/lab/elf.ts';
import { canonicalModuleName, dependenciesOf, withoutSignature } from '../../../lib/lab/kernel-module.ts';
import { writeElf } from './synthetic-elf.ts';

const TRAILER = '~Module signature appended~\n';

function signed(module: Buffer, signature: number): Buffer {
  const info = Buffer.alloc(12);
  info.writeUInt32BE(signature, 8);
  return Buffer.concat([module, Buffer.alloc(signature, 0xaa), info, Buffer.from(TRAILER)]);
}

describe('kernel modules', () => {
  it('lose an appended signature, and only that', () => {
    const module = Buffer.from('module');
    expect(Buffer.from(withoutSignature(signed(module, 401)))).toEqual(module);
    expect(withoutSignature(module)).toBe(module);
  });

  it('are refused if the signature would be longer than the file', () => {
    const bytes = signed(Buffer.from('module'), 10);
    bytes.writeUInt32BE(1000, bytes.length - TRAILER.length - 4);
    expect(() => withoutSignature(bytes)).toThrow(RangeError);
  });

  it('name the modules they depend on', () => {
    const withInfo = (text: string) => writeElf(62, [{ name: '.modinfo', content: Buffer.from(text) }]);
    expect(dependenciesOf(withInfo('license=GPL\0depends=kvm,ccp\0name=kvm_amd\0'))).toEqual(['kvm', 'ccp']);
    expect(dependenciesOf(withInfo('depends=\0'))).toEqual([]);
    expect(dependenciesOf(withInfo('license=GPL\0'))).toEqual([]);
  });

  it('are the same module with dashes and with underscores', () => {
    expect(canonicalModuleName('kvm-hv')).toBe(canonicalModuleName('kvm_hv'));
  });
});

describe('an ELF object', () => {
  const whole = writeElf(22, [{ name: '.text', content: Buffer.from('07070707', 'hex'), functions: [['f', 2, 2]] }]);

  it('gives its sections and functions', () => {
    const elf = new ElfObject(whole);
    expect(elf.machine).toBe(22);
    expect(elf.functions(elf.section('.text'))).toEqual([{ name: 'f', offset: 2, size: 2 }]);
    expect(() => elf.section('.data')).toThrow('no section .data');
  });

  it('is refused or read in full, wherever the file is cut', () => {
    let refused = 0;
    for (let length = 0; length < whole.length; length++) {
      try {
        const elf = new ElfObject(whole.slice(0, length));
        expect(elf.functions(elf.section('.text'))).toEqual([{ name: 'f', offset: 2, size: 2 }]);
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
        refused += 1;
      }
    }
    // The last header's unread end (alignment, entry size) is all that may be missing.
    expect(refused).toBeGreaterThanOrEqual(whole.length - 16);
  });
});
