import { cli as aarch64 } from '../../arch/aarch64/cli.ts';
import { cli as ppc64 } from '../../arch/ppc64/cli.ts';
import { cli as riscv64 } from '../../arch/riscv64/cli.ts';
import { cli as s390x } from '../../arch/s390x/cli.ts';
import { cli as x86_64 } from '../../arch/x86_64/cli.ts';
import type { Arch } from '../../uapi/arch.ts';
import type { CliArch } from './cli-arch.ts';

const OF_FOLDERS: Readonly<Partial<Record<Arch, CliArch>>> = { x86_64, s390x, ppc64, aarch64, riscv64 };

/** What the command line knows of an architecture: nothing where its folder has no cli.ts. */
export const cliArch = (arch: Arch): CliArch => OF_FOLDERS[arch] ?? {};
