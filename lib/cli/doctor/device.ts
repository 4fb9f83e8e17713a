import { archOfNode } from '../../uapi/arch.ts';
import { cliArch } from '../arch/index.ts';
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
    : (cliArch(arch).howToLoad?.(cpu) ?? 'sudo modprobe kvm');
}

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
