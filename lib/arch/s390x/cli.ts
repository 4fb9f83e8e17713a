import { hex, ProgramInterruption } from '../../base/errors.ts';
import type { ArchPart, CliArch, Walk, WalkedGuest } from '../../cli/arch/cli-arch.ts';
import { firstVcpu } from '../../cli/arch/vcpus.ts';
import { RAM_SIZE, RESULTS } from '../../cli/tour/guest.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import { explainTranslation } from './model/index.ts';

function walk(address: bigint, { vm, facilities }: WalkedGuest): Walk {
  const found = explainTranslation(firstVcpu(vm).s390x.cpuState(facilities), vm.s390x.absoluteMemory(), address);
  return { physical: found.absolute, text: found.text };
}

/** 64-bit addressing without translation: a fresh vCPU has 24-bit addresses, which wrap. */
const PSW_MASK = 0x1_8000_0000n;
const FRAME = 0x1000;

/** Access keys: the one that the result's frame is given to, and another. */
const OWNER = 5;
const STRANGER = 4;

/** Prepares an s390x vCPU; after the run, protects the frame of a result with a storage key. */
function useStorageKeys(vm: Vm, vcpu: Vcpu): ArchPart {
  vcpu.s390x.setRegs({ pswMask: PSW_MASK });
  const [, { gpa, size }] = RESULTS;
  const gfn = Math.floor(gpa / FRAME);
  const read = (at: number, key: number): string => {
    try {
      return `0x${Buffer.from(vm.memOp.readAbsolute(at, size, { key })).toString('hex')}`;
    } catch (error) {
      if (!(error instanceof ProgramInterruption)) throw error;
      return `${error.title} ${hex(error.code)}`;
    }
  };
  return {
    report() {
      // Up to kernel 6.19 a page that was never touched has no place for a key; the first access gives it one.
      const before = read(gpa, 0);
      vm.storageKeys.set(gfn, [{ acc: OWNER, fetchProtection: true, reference: false, change: false }]);
      const allowed = read(gpa, OWNER);
      const refused = read(gpa, STRANGER);
      const key = vm.storageKeys.get(gfn, 1)?.[0];
      const protection = key?.fetchProtection === true ? 'fetch-protected' : 'open to fetches';
      return `MEM_OP at ${hex(gpa)}: ${before}. Once frame ${gfn} has a storage key for access key ${key?.acc}, ${protection}: ${allowed} with key ${OWNER}, ${refused} with key ${STRANGER}. At ${hex(RAM_SIZE)}: ${read(RAM_SIZE, OWNER)}.`;
    },
  };
}

export const cli: CliArch = {
  registers: (vcpu) => Object.entries(vcpu.s390x.getRegs()),
  walk,
  prepareArchPart: useStorageKeys,
  howToLoad: (cpuinfo) =>
    /\bsie\b/.test(cpuinfo)
      ? 'sudo modprobe kvm'
      : 'the processor shows no sie: let the LPAR or the hypervisor grant it',
  capabilities: [
    ['S390_MEM_OP', 'MEM_OP: bytes of the largest'],
    ['S390_MEM_OP_EXTENSION', 'bits: 1 absolute and keys, 2 cmpxchg'],
    ['S390_SKEYS', 'GET_SKEYS and SET_SKEYS'],
    ['S390_KEYOP', 'KEYOP: single storage keys'],
    ['S390_CMMA_MIGRATION', 'CMMA states of pages'],
    ['S390_HPAGE_1M', 'huge pages of 1 MiB'],
    ['S390_UCONTROL', 'VMs whose memory user space controls'],
    ['S390_PROTECTED', 'protected VMs'],
  ],
};
