import { CAP } from '../../../lib/uapi/capabilities.ts';
import { EXIT } from '../../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../../lib/uapi/structs.ts';
import { DONE_ADDRESS, type ScriptOp } from '../../scenarios/scenario.ts';
import { CODE_BYTES, CODE_UNIT, GUEST_UNITS, IO_OFFSET, type Kinds, list, n } from './kind.ts';

const RUN_MS = 2000;

/** Guests load and store here and there; the exits that this makes are taken one by one, up to the last. */
export const GUESTS: Kinds = {
  run: {
    weight: 14,
    make: (random) => {
      const address = (): number =>
        random.below(GUEST_UNITS) * 4096 + (random.oneIn(5) ? IO_OFFSET : random.below(1000) * 4);
      const steps = 1 + random.below(4);
      return [
        Array.from({ length: steps }, address),
        // Where what is loaded from there is stored; 0: nothing is loaded, and a number is stored.
        Array.from({ length: steps }, () => (random.oneIn(3) ? address() : 0)),
      ];
    },
    apply: (round, o) => {
      const { s, vm, vcpu, codeHva, nextCode } = round;
      round.nextCode += CODE_BYTES;
      const targets = list(o, 1);
      const ops = list(o, 0).map((address, i): ScriptOp => {
        const to = targets[i]!;
        if (to === 0) return { op: 'store', address, size: 4, value: i + 1 };
        return { op: 'copy', from: address, to, size: 4 };
      });
      s.load(vm, vcpu, codeHva + nextCode, CODE_UNIT * s.unit + nextCode, [...ops, { op: 'done' }]);
      const { exit_reason, mmio } = KVM_RUN;
      for (let exits = 0; exits <= 2 * ops.length; exits++) {
        if (s.calls.run(vcpu, RUN_MS) < 0) return;
        const run = s.runArea(vcpu);
        const reason = new Uint8Array(4);
        s.calls.readMemory(run + exit_reason, reason);
        if (reason[0] !== EXIT.MMIO) return;
        const address = new Uint8Array(8);
        s.calls.readMemory(run + mmio.phys_addr, address);
        if (address[3] === DONE_ADDRESS >>> 24) return;
        const isWrite = new Uint8Array(1);
        s.calls.readMemory(run + mmio.is_write, isWrite);
        // What the kernel leaves there for a load to get isn't defined.
        if (isWrite[0] === 0) s.calls.writeMemory(run + mmio.data, Uint8Array.of(exits, 2, 3, 4));
      }
    },
  },
  zone: {
    weight: 5,
    make: (random) => [
      random.below(GUEST_UNITS),
      random.pick([0, IO_OFFSET]),
      random.pick([4, 8, 0x40, 0x100, 0]),
      random.pick([0, 0, 0, 0, 1, 2]),
      random.pick([1, 1, 1, 0]),
    ],
    apply: ({ s, vm }, o) => {
      const address = n(o, 0) * s.unit + n(o, 1);
      if (n(o, 4) === 1) s.calls.registerCoalescedMmio(vm, address, n(o, 2), n(o, 3));
      else s.calls.unregisterCoalescedMmio(vm, address, n(o, 2), n(o, 3));
    },
  },
  /** What guests stored to zones: the ring's indexes, and its last entries up to the bytes that were stored. */
  drain: {
    weight: 5,
    make: () => [],
    apply: ({ s, kvm, vcpu }) => {
      const page = s.calls.checkExtension(kvm, CAP.COALESCED_MMIO);
      if (page <= 0) return;
      const ring = s.runArea(vcpu) + page * s.calls.pageSize;
      const indexes = new Uint8Array(8);
      s.calls.readMemory(ring, indexes);
      const [first = 0, last = 0] = new Uint32Array(indexes.buffer);
      const entries = Math.floor((s.calls.pageSize - 8) / COALESCED.size);
      for (let i = 0, at = first; at !== last && i < 4; i++, at = (at + 1) % entries) {
        s.calls.readMemory(ring + 8 + at * COALESCED.size, new Uint8Array(COALESCED.data + 4));
      }
      s.calls.writeMemory(ring, indexes.subarray(4));
    },
  },
};

/** `struct kvm_coalesced_mmio`: an address, a length, whether it was a port, and 8 bytes. */
const COALESCED = { data: 16, size: 24 } as const;
