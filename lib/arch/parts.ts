import type { KvmCalls } from '../calls/kvm-calls.ts';
import type { Architecture } from '../emulated/architecture.ts';
import type { MemslotContext } from '../rules/memslot.ts';
import type { Rule } from '../rules/rule.ts';
import type { Release } from '../uapi/release.ts';
import type { X86_64Build } from './x86_64/emulated/build.ts';

/** How a kernel was built, where that shows. */
export interface KernelBuild {
  /** Host page size of ppc64: 4096 or 65536. The other architectures have 4096. */
  readonly pageSize?: number;
  /** How the x86_64 KVM was built; Debian's way unless given. */
  readonly x86_64?: Partial<X86_64Build>;
}

/** What an architecture's folder hands out: its index.ts, by its line in arch/folders.ts. */
export interface ArchParts {
  /** Its emulated KVM. */
  readonly emulated: (release: Release, build: KernelBuild) => Architecture;
  /** Its checks of a VM's memslots, as the typed layer explains refusals by them: none unless given. */
  readonly memslotRules?: (calls: KvmCalls, vm: number) => readonly Rule<MemslotContext>[];
}
