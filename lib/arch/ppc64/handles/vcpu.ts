import { CAP } from '../../../uapi/capabilities.ts';

/** The vCPU, which takes capabilities. */
export interface PaprVcpu {
  enableCap(cap: number): void;
}

/** What only a vCPU of ppc64 has: `vcpu.ppc64`. */
export class VcpuPpc64 {
  readonly #vcpu: PaprVcpu;

  /** Made by the vCPU. */
  constructor(vcpu: PaprVcpu) {
    this.#vcpu = vcpu;
  }

  /** Makes it a vCPU of a PAPR guest, the only kind that Book3S HV runs. @throws KvmError EINVAL where it isn't HV */
  enablePapr(): void {
    this.#vcpu.enableCap(CAP.PPC_PAPR);
  }
}
