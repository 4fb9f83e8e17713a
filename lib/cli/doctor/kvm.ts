import { sep } from 'node:path';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Kvm } from '../../handles/kvm.ts';
import type { Vm } from '../../handles/vm.ts';
import type { Arch } from '../../uapi/arch.ts';
import type { CapName } from '../../uapi/capabilities.ts';
import type { CapabilityMeaning } from '../arch/cli-arch.ts';
import { cliArch } from '../arch/index.ts';
import { explainError } from '../explain-error.ts';
import { type Finding, fail, note, ok } from './finding.ts';
import type { Host } from './host.ts';
import { examinePgste } from './surroundings.ts';

export interface CapabilityFinding {
  readonly name: CapName;
  readonly value: number;
  readonly meaning: string;
}

/** The addon: loaded, or every path that was tried and the last error. */
export function examineAddon(host: Host): { readonly finding: Finding; readonly calls?: KvmCalls } {
  const loaded = host.loadAddon();
  if ('calls' in loaded) {
    const { calls, path } = loaded;
    return { calls, finding: ok('addon', `for ${calls.arch}, ${originOf(path, host)}: ${path}`) };
  }
  const tried = loaded.tried.length === 0 ? '' : `\ntried, in this order:\n${loaded.tried.join('\n')}`;
  return {
    finding: fail(
      'addon',
      `${loaded.reason}\nlast error: ${firstLine(loaded.error.message)}${tried}`,
      loaded.mend ?? addonMend(host),
    ),
  };
}

function originOf(path: string, host: Host): string {
  if (host.env.KVM_BRIDGE_ADDON) return 'named by KVM_BRIDGE_ADDON';
  return path.split(sep).includes('prebuilds') ? 'the prebuilt one' : 'built here';
}

function addonMend(host: Host): string {
  if (host.platform !== 'linux') return 'none: the addon is for Linux';
  return host.env.KVM_BRIDGE_ADDON ? 'unset KVM_BRIDGE_ADDON, or let it name the addon' : 'npm rebuild kvm-bridge';
}

const firstLine = (text: string): string => text.split('\n', 1)[0] ?? '';

/** Opens /dev/kvm and makes a VM and a vCPU, closing them again; what works, and the capabilities. */
export function examineKvm(
  host: Host,
  calls: KvmCalls,
): { readonly findings: Finding[]; readonly capabilities: CapabilityFinding[] } {
  const findings: Finding[] = [];
  const attempt = <T>(subject: string, mend: string, action: () => T, detail: (value: T) => string): T | undefined => {
    try {
      const value = action();
      findings.push(ok(subject, detail(value)));
      return value;
    } catch (error) {
      findings.push(fail(subject, explainError(error), mend));
      return undefined;
    }
  };
  const works = () => 'works';
  const kvm = attempt('open', `ls -l /dev/kvm; ${KERNEL_LOG}`, () => Kvm.open({ calls }), works);
  if (kvm === undefined) return { findings, capabilities: [] };
  let capabilities: CapabilityFinding[] = [];
  try {
    const version = attempt('API version', `ls -l /dev/kvm, which is not KVM's`, () => kvm.getApiVersion(), String);
    if (version === undefined) return { findings, capabilities };
    const vm = attempt('create VM', examinePgste(host)?.mend ?? KERNEL_LOG, () => kvm.createVm(), works);
    const asked: Kvm | Vm = vm ?? kvm;
    capabilities = capabilitiesOf(calls.arch).map(([name, meaning]) => ({
      name,
      meaning,
      value: asked.checkExtension(name),
    }));
    if (vm === undefined) return { findings, capabilities };
    const { prepareVm, runHalt } = calls.backend === 'native' ? cliArch(calls.arch) : {};
    prepareVm?.(vm);
    const vcpu = attempt('create vCPU', KERNEL_LOG, () => vm.createVcpu(), works);
    if (vcpu !== undefined && runHalt !== undefined) findings.push(tryGuest(() => runHalt(vm, vcpu)));
    vm.close();
  } finally {
    kvm.close();
  }
  return { findings, capabilities };
}

const KERNEL_LOG = 'sudo dmesg | grep -i kvm';

function tryGuest(runHalt: () => string): Finding {
  try {
    const reason = runHalt();
    return reason === 'HLT'
      ? ok('run a guest', 'its hlt came back as HLT')
      : note('run a guest', `one that only halts came back with ${reason}`);
  } catch (error) {
    return note('run a guest', explainError(error), KERNEL_LOG);
  }
}

const EVERYWHERE: readonly CapabilityMeaning[] = [
  ['NR_MEMSLOTS', 'memslots of an address space'],
  ['MULTI_ADDRESS_SPACE', 'address spaces'],
  ['READONLY_MEM', 'memslots that guests may only read'],
  ['MANUAL_DIRTY_LOG_PROTECT2', 'dirty logs that user space clears: bits'],
  ['DIRTY_LOG_RING', 'dirty rings: bytes of the largest'],
  ['DIRTY_LOG_RING_ACQ_REL', 'dirty rings on weakly ordered processors'],
  ['DIRTY_LOG_RING_WITH_BITMAP', 'a dirty bitmap beside the rings'],
  ['USER_MEMORY2', 'SET_USER_MEMORY_REGION2'],
  ['GUEST_MEMFD', 'private guest memory'],
  ['MEMORY_ATTRIBUTES', 'attributes of guest memory, as bits'],
  ['MEMORY_FAULT_INFO', 'faults of guest memory are described'],
  ['PRE_FAULT_MEMORY', 'guest memory can be faulted in beforehand'],
  ['IMMEDIATE_EXIT', 'runs can be interrupted without a race'],
  ['IOEVENTFD', 'stores that signal an eventfd'],
  ['IRQFD', 'eventfds that inject an interrupt'],
  ['COALESCED_MMIO', 'stores that are put aside: ring at page'],
  ['MAX_VCPUS', 'vCPUs of a VM'],
];

const capabilitiesOf = (arch: Arch): readonly CapabilityMeaning[] => [
  ...EVERYWHERE,
  ...(cliArch(arch).capabilities ?? []),
];
