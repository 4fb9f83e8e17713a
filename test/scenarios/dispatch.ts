import { requestNumber } from '../../lib/uapi/requests.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

/** What every descriptor answers to requests that aren't for it, and the basics of /dev/kvm. */
export const dispatchScenarios: readonly Scenario[] = [
  {
    name: 'dispatch/dev-kvm',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const kvm = calls.openKvm();
      calls.getApiVersion(kvm, 0);
      calls.getApiVersion(kvm, 1);
      calls.getVcpuMmapSize(kvm, 0);
      calls.getVcpuMmapSize(kvm, 1);
      calls.createVm(kvm, 0xffff_ffff);
      calls.checkExtension(kvm, 3);
      calls.checkExtension(kvm, 9999);
      calls.close(kvm);
      calls.getApiVersion(kvm, 0);
      calls.createVm(kvm, 0);
      calls.close(kvm);
    },
  },
  {
    name: 'dispatch/wrong-descriptor',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const eventfd = calls.eventfd(0);
      for (const fd of [kvm, vcpu, eventfd, -1]) calls.setUserMemoryRegion(fd, 0, 0, 0, 0x10_0000, 0);
      for (const fd of [kvm, vm, eventfd, -1]) calls.run(fd, 1);
      for (const fd of [vm, vcpu, eventfd, -1]) calls.getApiVersion(fd, 0);
      for (const fd of [vcpu, eventfd]) calls.checkExtension(fd, 3);
      for (const fd of [kvm, vcpu, eventfd]) calls.createVcpu(fd, 1);
    },
  },
  {
    name: 'dispatch/unknown-request',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      const unknown = s.arch === 'ppc64' ? 0x2000_aeff : 0xaeff;
      for (const fd of [kvm, vm, vcpu]) calls.ioctlUnchecked(fd, unknown, 0);
      const run = requestNumber('KVM_RUN', s.arch);
      calls.ioctlUnchecked(vcpu, run, 1);
      const region = requestNumber('KVM_SET_USER_MEMORY_REGION', s.arch);
      calls.ioctlUnchecked(vm, region, new Uint8Array(31));
      calls.ioctlUnchecked(vm, region, new Uint8Array(32));
      calls.ioctlUnchecked(vm, requestNumber('KVM_CHECK_EXTENSION', s.arch), 3);
    },
  },
  {
    name: 'dispatch/vcpus',
    // What a duplicate id gets on ppc64 depends on the processor.
    arches: ['x86_64', 's390x', 'aarch64', 'riscv64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      calls.createVcpu(vm, 0);
      calls.createVcpu(vm, 0);
      calls.createVcpu(vm, 0x7fff_ffff);
    },
  },
  {
    name: 'dispatch/fixed-capabilities',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const caps = [3, 10, 15, 16, 21, 30, 36, 81, 98, 100, 105, 118, 122, 162, 168, 192, 223, 225, 231, 233, 234];
      for (const cap of caps) calls.checkExtension(kvm, cap);
      for (const cap of [10, 81, 118, 233, 234]) calls.checkExtension(vm, cap);
      if (s.arch === 's390x') for (const cap of [71, 99, 108, 110, 145, 211, 247]) calls.checkExtension(kvm, cap);
      if (s.arch === 'ppc64') for (const cap of [78, 80, 84, 133]) calls.checkExtension(vm, cap);
    },
  },
  {
    name: 'dispatch/vm-outlives-its-descriptor',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { kvm, vm } = s.vm();
      const vcpu = calls.createVcpu(vm, 0);
      calls.close(kvm);
      const hva = s.memory(1);
      calls.setUserMemoryRegion(vm, 0, 0, 0, s.unit, hva);
      calls.close(vm);
      calls.setUserMemoryRegion(vm, 0, 0, 0, 0, 0);
      calls.close(vcpu);
    },
  },
];
