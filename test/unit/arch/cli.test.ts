import { expect, it } from 'vitest';
import { cli as aarch64 } from '../../../lib/arch/aarch64/cli.ts';
import { cli as ppc64 } from '../../../lib/arch/ppc64/cli.ts';
import { cli as riscv64 } from '../../../lib/arch/riscv64/cli.ts';
import { cli as s390x } from '../../../lib/arch/s390x/cli.ts';
import { cli as x86_64 } from '../../../lib/arch/x86_64/cli.ts';
import type { CliArch } from '../../../lib/cli/arch/cli-arch.ts';
import { cliArch } from '../../../lib/cli/arch/index.ts';
import { Kvm } from '../../../lib/index.ts';
import { ARCHES, type Arch } from '../../../lib/uapi/arch.ts';

it('the command line finds what it knows of each architecture in its folder', () => {
  const parts: Record<Arch, CliArch> = { x86_64, s390x, ppc64, aarch64, riscv64 };
  for (const arch of ARCHES) expect(cliArch(arch)).toBe(parts[arch]);
});

it.each(ARCHES)('%s: the registers of a vCPU have names and values', (arch) => {
  using kvm = Kvm.open({ backend: 'emulated', arch });
  using vm = kvm.createVm();
  const vcpu = vm.createVcpu();
  if (arch === 'aarch64') vcpu.aarch64.init();
  const registers = cliArch(arch).registers?.(vcpu) ?? [];
  expect(registers.length).toBeGreaterThan(16);
  for (const [name, value] of registers)
    expect([name, value]).toEqual([expect.stringMatching(/^\w/), expect.any(BigInt)]);
});

it.each(['x86_64', 's390x'] as const)('%s: without a vCPU there are no tables to walk', (arch) => {
  using kvm = Kvm.open({ backend: 'emulated', arch });
  using vm = kvm.createVm();
  expect(() => cliArch(arch).walk?.(0n, { vm })).toThrow(/no vCPU whose tables could be walked/);
});
