import { describe, expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/backends/emulated.ts';
import { traced } from '../../../lib/calls/recorder.ts';
import { signaturesOf } from '../../../lib/calls/signatures.ts';
import { exitText, structureText } from '../../../lib/calls/structures.ts';
import type { Arch } from '../../../lib/uapi/arch.ts';
import { CAP } from '../../../lib/uapi/capabilities.ts';
import { EXIT } from '../../../lib/uapi/flags.ts';
import { type RequestName, requestNumber, requestSize } from '../../../lib/uapi/requests.ts';
import { symbolic } from '../../../lib/uapi/symbols.ts';

const u64s = (...values: bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(values).buffer);

/** A kvm_run of a little-endian machine: its exit reason, and doublewords from the union on. */
function kvmRun(reason: number, ...union: bigint[]): Uint8Array {
  const bytes = new Uint8Array(2352);
  bytes[8] = reason;
  bytes.set(u64s(...union), 32);
  return bytes;
}

/*
 * What came with 6.13 to 7.3 and has to do with memory, as a trace prints it. The numbers are those of linux/kvm.h and
 * linux/userfaultfd.h of 7.3.
 */
describe('a trace', () => {
  it.each([
    [236, 'PRE_FAULT_MEMORY'],
    [244, 'GUEST_MEMFD_FLAGS'],
    [245, 'ARM_SEA_TO_USER'],
    [246, 'S390_USER_OPEREXEC'],
    [247, 'S390_KEYOP'],
    [248, 'S390_VSIE_ESAMODE'],
    [249, 'S390_HPAGE_2G'],
    [250, 'PPC_COMPAT_CAPS'],
    [251, 'ARM_PMU_V3_STRICT'],
  ])('names capability %i', (number, name) => {
    const lines: string[] = [];
    const calls = traced(new EmulatedKernel({ arch: 'x86_64' }), (line) => lines.push(line), { symbols: true });
    calls.checkExtension(calls.openKvm(), number);
    expect(lines[1]).toMatch(new RegExp(`^checkExtension\\(kvm#1, ${name}\\) = `));
  });

  it('names every capability that there is', () => {
    for (const [name, number] of Object.entries(CAP)) expect(symbolic('CAP', number, 'x86_64')).toBe(name);
  });

  it.each<[Arch, number, string]>([
    ['aarch64', 0x8000_0028, 'ARM_PROTECTED|0x28'],
    ['x86_64', 1, 'X86_SW_PROTECTED'],
    ['s390x', 1, 'S390_UCONTROL'],
    ['ppc64', 1, 'PPC_HV'],
    ['riscv64', 0, '0'],
  ])('names the types of VMs of %s', (arch, type, text) => {
    const lines: string[] = [];
    const calls = traced(new EmulatedKernel({ arch }), (line) => lines.push(line), { symbols: true });
    calls.createVm(calls.openKvm(), type);
    expect(lines[1]).toContain(`createVm(kvm#1, ${text}) = `);
  });

  it.each<[Arch, RequestName, Uint8Array, string]>([
    [
      's390x',
      'KVM_S390_KEYOP',
      Uint8Array.of(0, 0, 0, 0, 0, 0, 0x50, 0, 0x36, 3, 0, 0, 0, 0, 0, 0),
      '{guest_addr 0x5000 key 0x36 operation SSKE}',
    ],
    [
      'ppc64',
      'KVM_PPC_GET_COMPAT_CAPS',
      u64s(24n, 0n, 6n << 60n),
      '{size 0x18 flags 0x0 compat_capabilities POWER9|POWER10}',
    ],
    [
      'x86_64',
      'UFFDIO_API',
      u64s(0xaan, (1n << 17n) | (1n << 18n), 0n),
      '{api 0xaa features RWP|RWP_ASYNC ioctls 0x0}',
    ],
    [
      'x86_64',
      'UFFDIO_REGISTER',
      u64s(0x1000n, 0x2000n, 9n, 0n),
      '{start 0x1000 len 0x2000 mode MISSING|RWP ioctls 0x0}',
    ],
    ['x86_64', 'UFFDIO_WRITEPROTECT', u64s(0x1000n, 0x2000n, 1n), '{start 0x1000 len 0x2000 mode WP}'],
    ['x86_64', 'UFFDIO_RWPROTECT', u64s(0x1000n, 0x2000n, 3n), '{start 0x1000 len 0x2000 mode RWP|DONTWAKE}'],
    ['x86_64', 'UFFDIO_SET_MODE', u64s(0n, 1n << 18n), '{enable 0 disable RWP_ASYNC}'],
  ])("has %s's structure of %s by its fields", (arch, name, bytes, text) => {
    const request = requestNumber(name, arch);
    expect(structureText(request, bytes, arch)).toBe(text);
    // All of it; the number of GET_COMPAT_CAPS says nothing of its structure.
    expect(bytes.length).toBe(requestSize(name) || 24);
    expect(structureText(request, bytes.subarray(0, 9), arch)).toBeUndefined();

    const lines: string[] = [];
    const calls = traced(new EmulatedKernel({ arch }), (line) => lines.push(line), { symbols: true });
    calls.ioctlUnchecked(calls.createVm(calls.openKvm(), 0), request, bytes);
    expect(lines.at(-1)).toContain(`ioctlUnchecked(vm#1, ${name}, ${text}) = `);
  });

  it.each<[string, Uint8Array, string]>([
    [
      'a store',
      kvmRun(EXIT.MMIO, 0xd000_0004n, 0x1122_3344n, 0x1_0000_0004n),
      'MMIO phys_addr 0xd0000004 len 0x4 is_write 1 data 4433221100000000',
    ],
    ['a load', kvmRun(EXIT.MMIO, 0xd000_0004n, 0n, 8n), 'MMIO phys_addr 0xd0000004 len 0x8 is_write 0'],
    [
      'private memory',
      kvmRun(EXIT.MEMORY_FAULT, 8n, 0x1_0000n, 0x1000n),
      'MEMORY_FAULT flags PRIVATE gpa 0x10000 size 0x1000',
    ],
    ['TDX', kvmRun(40, 1n, 0x10001n, 0n), 'TDX flags 0x1 nr 0x10001 ret 0x0'],
    [
      'memory that failed on arm64',
      kvmRun(41, 1n, 0x9200_0010n, 0xffffn, 0x8000_1000n),
      'ARM_SEA flags GPA_VALID esr 0x92000010 gva 0xffff gpa 0x80001000',
    ],
    [
      '64-byte loads and stores of arm64',
      kvmRun(42, 0x12n, 0x900_0000n),
      'ARM_LDST64B esr_iss 0x12 fault_ipa 0x9000000',
    ],
    ['certificates for SNP', kvmRun(43, 0x7000n, 2n, 0n), 'SNP_REQ_CERTS gpa 0x7000 npages 0x2 ret 0x0'],
    ['one without fields', kvmRun(EXIT.HLT), 'HLT'],
    ['one nobody knows', kvmRun(200), 'EXIT_200'],
  ])('says of the exit for %s what kvm_run says', (_what, run, text) => {
    expect(exitText(run, 'x86_64')).toBe(text);
  });

  it('reads what a big-endian kernel wrote', () => {
    const run = new Uint8Array(2352);
    run.set([0, 0, 0, 13], 8);
    run.set([4, 0, 0x83, 0, 0, 0, 0x5, 0], 48);
    expect(exitText(run, 's390x')).toBe('S390_SIEIC icptcode 0x4 ipa 0x8300 ipb 0x500');
  });

  it('has names for what is a number of names, and only for that', () => {
    for (const group of [undefined, 'x86_64', 's390x', 'ppc64', 'sharing'] as const) {
      for (const { parameters } of Object.values(signaturesOf(group))) {
        for (const [, kind, symbols] of parameters)
          if (symbols !== undefined) expect(['u32', 'u64', 'x32', 'x64']).toContain(kind);
      }
    }
  });
});
