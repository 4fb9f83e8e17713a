import { ElfObject } from './elf.ts';

const SIGNATURE_TRAILER = Buffer.from('~Module signature appended~\n');
const SIGNATURE_INFO_BYTES = 12;

/**
 * A module without the signature appended to it (Documentation/admin-guide/module-signing.rst). The kernel refuses a wrong
 * signature, while a missing one only taints it.
 *
 * @throws RangeError if the trailer does not fit the file
 */
export function withoutSignature(module: Uint8Array): Uint8Array {
  const bytes = Buffer.from(module.buffer, module.byteOffset, module.byteLength);
  const trailer = bytes.length - SIGNATURE_TRAILER.length;
  if (trailer < SIGNATURE_INFO_BYTES || !bytes.subarray(trailer).equals(SIGNATURE_TRAILER)) return module;
  const signatureBytes = bytes.readUInt32BE(trailer - 4);
  const end = trailer - SIGNATURE_INFO_BYTES - signatureBytes;
  if (end <= 0) throw new RangeError('the module signature is longer than the module');
  return module.subarray(0, end);
}

/** The modules that a module needs loaded before it, from its `.modinfo`. */
export function dependenciesOf(module: Uint8Array): string[] {
  const elf = new ElfObject(module);
  const info = Buffer.from(elf.content(elf.section('.modinfo'))).toString('latin1');
  const depends = info.split('\0').find((line) => line.startsWith('depends='));
  return (depends ?? 'depends=')
    .slice('depends='.length)
    .split(',')
    .filter((name) => name !== '');
}

/** Module names are the same with dashes and with underscores. */
export function canonicalModuleName(name: string): string {
  return name.replaceAll('-', '_');
}
