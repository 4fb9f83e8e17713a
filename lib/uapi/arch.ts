/** The architectures whose KVM this project knows. `ppc64` is Book3S HV, whatever its byte order. */
export const ARCHES = ['x86_64', 's390x', 'ppc64', 'aarch64'] as const;

export type Arch = (typeof ARCHES)[number];

/** The architecture that Node's `process.arch` names, or undefined where KVM's memory calls are not known to us. */
export function archOfNode(nodeArch: string): Arch | undefined {
  switch (nodeArch) {
    case 'x64':
      return 'x86_64';
    case 's390x':
      return 's390x';
    case 'ppc64':
      return 'ppc64';
    case 'arm64':
      return 'aarch64';
    default:
      return undefined;
  }
}

/** Whether guest-visible integers in the KVM structures are little-endian on a host of this architecture as we run it. */
export function isLittleEndianHost(arch: Arch): boolean {
  return arch !== 's390x';
}
