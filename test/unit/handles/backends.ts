import { Kvm } from '../../../lib/index.ts';
import type { OpenOptions } from '../../../lib/raw.ts';

export interface Backend {
  readonly name: string;
  readonly options: OpenOptions;
}

/** Every kernel that the typed layer must give the same on. */
export const emulatedBackends: readonly Backend[] = [
  { name: 'emulated x86_64', options: { backend: 'emulated', arch: 'x86_64' } },
  { name: 'emulated s390x', options: { backend: 'emulated', arch: 's390x' } },
  { name: 'emulated ppc64, 4K pages', options: { backend: 'emulated', arch: 'ppc64', pageSize: 4096 } },
  { name: 'emulated ppc64, 64K pages', options: { backend: 'emulated', arch: 'ppc64', pageSize: 65536 } },
  { name: 'emulated aarch64', options: { backend: 'emulated', arch: 'aarch64' } },
  { name: 'emulated riscv64', options: { backend: 'emulated', arch: 'riscv64' } },
];

function openNative(): Kvm | Error {
  try {
    return Kvm.open({ backend: 'native' });
  } catch (error) {
    return error as Error;
  }
}

const native = openNative();

/** Why the tests of the real kernel cannot run here; undefined when they can. */
export const nativeMissing = native instanceof Error ? native.message : undefined;

if (native instanceof Error) console.log(`The tests of the real kernel are left out here: ${native.message}`);
else native.close();

export const backends: readonly Backend[] =
  nativeMissing === undefined
    ? [{ name: 'the real kernel', options: { backend: 'native' } }, ...emulatedBackends]
    : emulatedBackends;

/** A multiple of which every slot's size and host address may be on every architecture. */
export const UNIT = 0x10_0000;
