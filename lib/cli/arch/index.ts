import type { Arch } from '../../uapi/arch.ts';
import { aarch64 } from './aarch64.ts';
import type { CliArch } from './cli-arch.ts';
import { ppc64 } from './ppc64.ts';
import { riscv64 } from './riscv64.ts';
import { s390x } from './s390x.ts';
import { x86_64 } from './x86_64.ts';

/** The architectures that there are. */
export const CLI_ARCHES: Readonly<Record<Arch, CliArch>> = { x86_64, s390x, ppc64, aarch64, riscv64 };
