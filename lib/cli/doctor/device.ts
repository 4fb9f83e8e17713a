import { type Arch, archOfNode } from '../../uapi/arch.ts';
import { type Finding, fail, ok } from './finding.ts';
import type { Host } from './host.ts';

const DEVICE = '/dev/kvm';

/** Whether /dev/kvm is there, and whether this user may open it. */
export function examineDevice(host: Host): Finding {
  const file = host.stat(DEVICE);
  if (file === undefined) return examineAbsence(host);
  const mode = `mode ${file.mode.toString(8).padStart(4, '0')}`;
  if (!file.isCharacterDevice)
    return fail(DEVICE, `is not a character device (${mode})`, `sudo rm ${DEVICE} && sudo mknod ${DEVICE} c 10 232`);
  if (!host.canReadAndWrite(DEVICE)) {
    return fail(DEVICE, `this user may not read and write it (${mode})`, howToGetPermission(host, file));
  }
  return ok(DEVICE, `character device, ${mode}, this user may read and write it`);
}

/** Without the file: the kernel's list of such devices tells a node that is missing from KVM that is. */
function examineAbsence(host: Host): Finding {
  const minor = /^ *(\d+) kvm$/m.exec(host.read('/proc/misc') ?? '')?.[1];
  if (minor === undefined) {
    return fail(
      DEVICE,
      'there is no such file, and /proc/misc has no kvm: it is not loaded, or cannot run here',
      howToGetDevice(host),
    );
  }
  const detail = 'there is no such file, and /proc/misc has kvm: only the device node is missing';
  return fail(DEVICE, detail, isContainer(host) ? howToGetDevice(host) : `sudo mknod -m 0660 ${DEVICE} c 10 ${minor}`);
}

function howToGetDevice(host: Host): string {
  if (isContainer(host)) return 'start the container with --device /dev/kvm (the host must have it)';
  if (/microsoft/i.test(host.release)) {
    return 'put nestedVirtualization=true under [wsl2] in .wslconfig, then: wsl --shutdown';
  }
  const cpu = host.read('/proc/cpuinfo') ?? '';
  const arch = archOfNode(host.nodeArch);
  return arch === undefined
    ? 'there is no KVM for this processor'
    : (MODULE_ADVICE[arch]?.(cpu) ?? 'sudo modprobe kvm');
}

const MODULE_ADVICE: Partial<Record<Arch, (cpuinfo: string) => string>> = {
  x86_64: (cpu) =>
    /\bvmx\b/.test(cpu)
      ? 'sudo modprobe kvm_intel'
      : /\bsvm\b/.test(cpu)
        ? 'sudo modprobe kvm_amd'
        : 'the processor shows neither vmx nor svm: turn virtualization on in the firmware, or, if this is a VM, nested virtualization in its hypervisor',
  s390x: (cpu) =>
    /\bsie\b/.test(cpu) ? 'sudo modprobe kvm' : 'the processor shows no sie: let the LPAR or the hypervisor grant it',
  ppc64: () => 'sudo modprobe kvm_hv (a POWER processor in hypervisor mode, or a pSeries that may nest)',
  aarch64: () => 'KVM is built into the kernel, and needs one that was booted at EL2: see dmesg | grep -i kvm',
};

function howToGetPermission(host: Host, { mode, gid }: { readonly mode: number; readonly gid: number }): string {
  const group = groupName(host, gid);
  const groupMayUse = (mode & 0o060) === 0o060;
  return groupMayUse && group !== undefined && group !== 'root'
    ? `sudo usermod -aG ${group} ${host.user}, then log in again`
    : `sudo setfacl -m u:${host.user}:rw ${DEVICE}`;
}

function groupName(host: Host, gid: number): string | undefined {
  const lines = host.read('/etc/group')?.split('\n') ?? [];
  return lines.map((line) => line.split(':')).find((fields) => fields[2] === String(gid))?.[0];
}

function isContainer(host: Host): boolean {
  return ['/.dockerenv', '/run/.containerenv'].some((path) => host.stat(path) !== undefined);
}
