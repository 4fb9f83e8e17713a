import { readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import type { EmulatedKernelOptions } from '../../lib/backends/emulated.ts';
import type { NativeLoad } from '../../lib/backends/native.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { errnoName } from '../../lib/uapi/errno.ts';
import { releaseOfHost } from '../../lib/uapi/release.ts';
import { nativeGuestLoader } from './guests/native.ts';
import { scenariosFor } from './index.ts';
import type { Scenario } from './scenario.ts';

/** Why this machine's own KVM can't be used, in a sentence; undefined when it can. */
export function whyNoKvm(loaded: NativeLoad): string | undefined {
  if (!('calls' in loaded)) return loaded.reason;
  const kvm = loaded.calls.openKvm();
  if (kvm < 0) return `/dev/kvm can't be opened: ${errnoName(kvm)}. \`kvm-bridge doctor\` says how to mend it.`;
  loaded.calls.close(kvm);
  return undefined;
}

/** The scenarios that this host can carry out: without guests where we have no code for them. */
export function applicable(calls: KvmCalls, emulation: EmulatedKernelOptions): readonly Scenario[] {
  const runsGuests = nativeGuestLoader(calls) !== undefined;
  const onProcessor = emulation.x86_64?.emulatesRealMode !== true;
  return scenariosFor(calls.arch).filter(
    ({ runsGuest, needsProcessor, entersSie }) =>
      (runsGuest !== true || runsGuests) &&
      (needsProcessor !== true || onProcessor) &&
      (entersSie !== true || survivesSie(emulation)),
  );
}

/** Whether a process may enter a vCPU of s390x: on a processor without SIE only up to 6.19. */
function survivesSie({ arch, release: text }: EmulatedKernelOptions): boolean {
  if (arch !== 's390x' || !releaseOfHost(text ?? release()).since(7, 0)) return true;
  return /^features\s*:.*\bsie\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));
}

/** What the machine is, for a recording's header. */
export function machineName(): string {
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
  const model = /^(?:model name|cpu|processor 0|vendor_id)\s*:\s*(.+)$/m.exec(cpuinfo)?.[1] ?? 'unknown processor';
  const modules = readdirSync('/sys/module').filter((name) => name.startsWith('kvm'));
  return [model.trim(), ...modules.sort()].join(', ');
}
