import { KVM_RUN_S390X } from '../../../lib/uapi/structs.ts';
import { CODE_UNIT, type Kinds, list, n, type Round } from './kind.ts';

const PSW_BYTES = 16;

/** Where user space sees the PSW and the registers. */
export function showRun({ s: { calls }, kvm, vcpu, own }: Round): void {
  own.set('run', calls.mmap(calls.getVcpuMmapSize(kvm, 0), 3, 1, vcpu, 0, 0, 0));
}

const look = ({ s: { calls }, own }: Round): void => {
  calls.readMemory(own.get('run')! + KVM_RUN_S390X.psw_mask, new Uint8Array(PSW_BYTES));
};

/** Resets, the first PSW, and pages that are brought in before anybody asks for them. */
export const S390X_VCPU: Kinds = {
  reset: {
    weight: 6,
    make: (random) => [random.below(3)],
    apply: (round, o) => {
      const { s, vcpu } = round;
      s.calls.s390x![(['initialReset', 'normalReset', 'clearReset'] as const)[n(o, 0)]!](vcpu);
      look(round);
      s.calls.getMpState(vcpu);
    },
  },
  psw: {
    weight: 4,
    make: (random) => [random.bytes(8), random.bytes(8)],
    apply: (round, o) => {
      const { s, vcpu } = round;
      const word = (i: number): bigint => new DataView(Uint8Array.from(list(o, i)).buffer).getBigUint64(0);
      s.calls.s390x!.setInitialPsw(vcpu, word(0), word(1));
      look(round);
    },
  },
  broughtIn: {
    weight: 3,
    make: (random) => [random.below(CODE_UNIT), random.below(0x10_0000)],
    apply: ({ s, vcpu }, o) => {
      s.calls.s390x!.vcpuFault(vcpu, n(o, 0) * s.unit + n(o, 1));
    },
  },
};
