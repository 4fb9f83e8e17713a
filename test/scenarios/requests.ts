import { CALL_GROUPS, type Parameter, type Signature, signaturesOf } from '../../lib/calls/signatures.ts';
import { CAP } from '../../lib/uapi/capabilities.ts';
import { DIRTY_LOG, IRQFD, MEM } from '../../lib/uapi/flags.ts';
import { EVERYWHERE, type Scenario, type ScenarioHost } from './scenario.ts';

/** Ioctls that several kinds of descriptor take: which they are, is for other scenarios. */
const GENERIC = 'fd';

type AnyCall = (...args: readonly unknown[]) => unknown;

/** Every request on descriptors that are not for it, and requests whose answers other scenarios have no use for. */
export const requestScenarios: readonly Scenario[] = [
  {
    name: 'requests/wrong-descriptors',
    arches: EVERYWHERE,
    run: async (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const fds = { kvm, vm, vcpu, eventfd: calls.eventfd(0), none: -1 };
      for (const { methods, name, signature } of everyIoctl(s)) {
        const [[parameter] = [GENERIC], ...others] = signature.parameters;
        for (const [kind, fd] of Object.entries(fds)) {
          const isFor = parameter === GENERIC ? ['kvm', 'vm', 'vcpu'].includes(kind) : parameter === kind;
          if (!isFor) await methods[name]!(fd, ...others.map(nothing));
        }
      }
    },
  },
  {
    name: 'requests/enable-capability',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      // One that is no capability, on each kind of descriptor; flags; and one that the kernel has.
      for (const fd of [kvm, vm, vcpu]) calls.enableCap(fd, 9999, 0, []);
      for (const fd of [vm, vcpu]) calls.enableCap(fd, CAP.MANUAL_DIRTY_LOG_PROTECT2, 1, []);
      calls.enableCap(vm, CAP.MANUAL_DIRTY_LOG_PROTECT2, 0, [DIRTY_LOG.MANUAL_PROTECT_ENABLE]);
      calls.enableCap(vm, CAP.S390_IRQCHIP, 0, []);
    },
  },
  {
    name: 'requests/capabilities-of-s390x',
    arches: ['s390x'],
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const { PRE_FAULT_MEMORY, S390_USER_OPEREXEC, S390_KEYOP, S390_VSIE_ESAMODE, S390_HPAGE_2G } = CAP;
      for (const fd of [kvm, vm]) {
        // The newest, and two of other architectures.
        for (const cap of [PRE_FAULT_MEMORY, S390_USER_OPEREXEC, S390_KEYOP, S390_VSIE_ESAMODE, S390_HPAGE_2G]) {
          calls.checkExtension(fd, cap);
        }
        for (const cap of [CAP.GUEST_MEMFD_FLAGS, CAP.DIRTY_LOG_RING_ACQ_REL]) calls.checkExtension(fd, cap);
      }
    },
  },
  {
    name: 'requests/vcpu-made-twice',
    arches: ['ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      for (const id of [0, 0, 0x7fff_ffff]) calls.createVcpu(vm, id);
    },
  },
  {
    name: 'requests/interrupt-controller',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const event = calls.eventfd(0);
      calls.irqfd(vm, event, 1, 4, -1);
      for (const fd of [event, event]) calls.irqfd(vm, fd, 1, 0, -1);
      calls.irqfd(vm, event, 1, IRQFD.DEASSIGN, -1);
      calls.irqfd(vm, -1, 1, IRQFD.DEASSIGN, -1);
      calls.irqfd(vm, vm, 1, IRQFD.DEASSIGN, -1);
      calls.createVcpu(vm, 0);
      calls.createIrqchip(vm);
    },
  },
  {
    name: 'requests/interrupt-controller-of-s390x',
    arches: ['s390x'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const event = calls.eventfd(0);
      const other = calls.eventfd(0);
      for (const enabled of [false, true]) {
        if (enabled) calls.enableCap(vm, CAP.S390_IRQCHIP, 0, []);
        calls.createIrqchip(vm);
        for (const fd of [-1, vm, event, event]) calls.irqfd(vm, fd, 1, 0, -1);
        calls.irqfd(vm, event, 2, 0, -1);
        calls.irqfd(vm, event, 1, IRQFD.DEASSIGN, -1);
        calls.irqfd(vm, other, 1, IRQFD.DEASSIGN, -1);
      }
    },
  },
  {
    name: 'requests/second-version-of-a-slot',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const hva = s.memory(2);
      const set = (slot: number, flags: number, gpa: number, memfd: number): number =>
        calls.setUserMemoryRegion2(vm, slot, flags, gpa * unit, 2 * unit, hva, memfd, 0);
      set(0, 0, 4, 0);
      for (const gpa of [3, 5]) set(1, 0, gpa, 0);
      for (const memfd of [-1, vm]) set(1, MEM.GUEST_MEMFD, 8, memfd);
    },
  },
  {
    name: 'requests/dirty-rings',
    arches: EVERYWHERE,
    run: (s) => {
      const { vm } = s.vm();
      s.calls.resetDirtyRings(vm);
    },
  },
  {
    name: 'requests/device-attributes',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      // A group that nobody has.
      calls.hasDeviceAttr(vm, 0xffff, 0);
      calls.getDeviceAttr(vm, 0xffff, 0, new Uint8Array(8));
      calls.setDeviceAttr(vm, 0xffff, 0, new Uint8Array(8));
    },
  },
  {
    name: 'requests/tss-and-identity-map',
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const x86 = calls.x86_64!;
      for (const addr of [0xfffb_d000, 0xffff_d000, 0xffff_d001, 0x1_0000_0000]) x86.setTssAddr(vm, addr);
      for (const addr of [0xfffb_c000, 0]) x86.setIdentityMapAddr(vm, addr);
      calls.createVcpu(vm, 0);
      x86.setIdentityMapAddr(vm, 0xfffb_c000);
    },
  },
  {
    name: 'requests/pre-fault-without-memory',
    arches: ['x86_64', 's390x'],
    run: (s) => {
      const { calls, unit } = s;
      const { vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const hva = s.memory(2);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 2 * unit, hva);
      calls.munmap(hva + unit, unit);
      for (const gpa of [unit, unit - calls.pageSize]) {
        calls.preFaultMemory(vcpu, BigUint64Array.of(BigInt(gpa), BigInt(2 * calls.pageSize)), 0);
      }
    },
  },
  {
    name: 'requests/commit-of-an-unused-table',
    arches: ['ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      calls.ppc64!.allocateHtab(vm, 18);
      calls.ppc64!.resizeHptCommit(vm, 0, 19);
    },
  },
  {
    name: 'requests/smmu-info',
    arches: ['ppc64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      for (const info of [null, new Uint8Array(591)]) calls.ppc64!.getSmmuInfo(vm, info);
    },
  },
];

/** Every call that is an ioctl: where to find it, and what it takes. */
function* everyIoctl({ calls }: ScenarioHost) {
  for (const group of [undefined, ...CALL_GROUPS]) {
    const methods = (group === undefined ? calls : calls[group]) as Readonly<Record<string, AnyCall>> | undefined;
    if (methods === undefined) continue;
    for (const [name, signature] of Object.entries<Signature>(signaturesOf(group))) {
      if (signature.syscall.startsWith('ioctl(KVM_') || name === 'kick') yield { methods, name, signature };
    }
  }
}

/** An argument that asks for as little as can be. */
function nothing([, kind]: Parameter): unknown {
  switch (kind) {
    case 'in':
    case 'out':
    case 'inout':
      return new Uint8Array(1);
    case 'inout64':
      return new BigUint64Array(3);
    case 'u64s':
      return [];
    case 'fd':
      return -1;
    default:
      return 0;
  }
}
