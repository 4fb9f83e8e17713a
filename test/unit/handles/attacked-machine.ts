import {
  type AddressSpace,
  type Binding,
  type EventFd,
  GUEST_MEMFD_FLAG,
  type GuestMemfd,
  type HtabReader,
  type HtabWriter,
  Kvm,
  type Mapping,
  type MemoryRegion,
  type MmioRegion,
  PageFaults,
  type Reservation,
  TrackedWrites,
  type Vcpu,
  type Vm,
} from '../../../lib/index.ts';
import { type Arch, CAP, halt, store } from '../../../lib/raw.ts';
import type { Arena } from './attack.ts';

export const UNIT = 0x10_0000;
/** Bytes of guest memory at 0: few, since each machine has its own. */
export const RAM = 0x1_0000;
/** Where nothing else is put. */
const FAR = 0x3f_0000_0000;
/** The lowest descriptor of a kernel without open files. */
const FIRST_FD = 0x10_0000;

/** One of everything that a user can have, on an emulated kernel. */
export interface Machine {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly other: Vm;
  readonly vcpu: Vcpu;
  readonly ram: Mapping;
  readonly region: MemoryRegion;
  readonly device: MmioRegion;
  readonly spare: Mapping;
  readonly reservation: Reservation;
  readonly space: AddressSpace;
  readonly eventfd: EventFd;
  readonly binding: Binding;
  /** Of the hashed page table, on ppc64. */
  readonly reader: HtabReader | undefined;
  readonly writer: HtabWriter | undefined;
  /** What not every architecture has. */
  readonly memfd: GuestMemfd | undefined;
  readonly faults: PageFaults | undefined;
  readonly writes: TrackedWrites | undefined;
}

type Particular = Pick<Machine, 'reader' | 'writer' | 'memfd' | 'faults' | 'writes'>;

const NOTHING: Particular = {
  reader: undefined,
  writer: undefined,
  memfd: undefined,
  faults: undefined,
  writes: undefined,
};

const PARTICULAR: Partial<Record<Arch, (kvm: Kvm, vm: Vm, other: Vm) => Partial<Particular>>> = {
  ppc64: (_, vm) => ({ reader: vm.hpt.openReader(), writer: vm.hpt.openWriter() }),
  x86_64: (kvm, _, other) => ({
    // Regions of a VM that tracks dirty pages can't have one.
    memfd: other.createGuestMemfd(RAM, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED),
    faults: new PageFaults(kvm.mapAnonymous(RAM), { missing: () => null, store: () => {} }),
    writes: new TrackedWrites(kvm.mapAnonymous(RAM)),
  }),
};

const RELEASE: Partial<Record<Arch, string>> = { s390x: '7.2', x86_64: '6.18' };

function make(arch: Arch): Machine {
  const kvm = Kvm.open({ backend: 'emulated', arch, release: RELEASE[arch] ?? '6.12' });
  const vm = kvm.createVm();
  if (arch === 's390x') vm.cmma.enable();
  const ram = kvm.mapAnonymous(RAM);
  const region = vm.memory.addRam(0, ram);
  const device = vm.memory.addMmio(0x1000_0000, 0x1000, { read: () => 1, write: () => {} }, { name: 'uart' });
  if (arch === 'ppc64') vm.hpt.allocate(18);
  const vcpu = vm.createVcpu();
  if (arch === 'x86_64') {
    const guest = (function* () {
      yield store(0x2000, 1, 1n);
      yield halt;
    })();
    kvm.emulated?.loadGuest(vcpu.fd, guest);
  }
  vm.dirtyPages.start();
  const other = kvm.createVm();
  return {
    kvm,
    vm,
    other,
    vcpu,
    ram,
    region,
    device,
    spare: kvm.mapAnonymous(UNIT),
    reservation: kvm.reserve(UNIT),
    space: kvm.createAddressSpace(),
    eventfd: kvm.createEventFd(1),
    binding: vm.memory.bind({ name: 'attacked' }),
    ...NOTHING,
    ...PARTICULAR[arch]?.(kvm, vm, other),
  };
}

function close(machine: Machine): void {
  const { kvm, vm, other, ram, spare, reservation, space, eventfd, binding: first, memfd, faults, writes } = machine;
  first.release();
  for (const { bindings } of [vm.memory, other.memory, space]) for (const binding of bindings) binding.release();
  for (const open of [eventfd, vm, other, ram, spare, reservation]) open.close();
  memfd?.close();
  for (const served of [faults, writes]) {
    served?.close();
    served?.mapping.close();
  }
  kvm.close();
}

/** The lowest number that is free: a descriptor that was lost keeps its own. */
function freeDescriptor({ calls }: Kvm): number {
  const free = calls.eventfd(0);
  calls.close(free);
  return free;
}

function state(machine: Machine): unknown {
  const { kvm, vm, other, vcpu, ram, spare, reservation, space, eventfd, region, device } = machine;
  const { memfd, faults, writes } = machine;
  return {
    free: freeDescriptor(kvm),
    pins: [ram, spare, reservation].map((mapping) => [mapping.closed, mapping.pins]),
    closed: [kvm, vm, other, vcpu, eventfd].map((handle) => handle.closed),
    regions: [vm.memory, other.memory, space].map((memory) => [...memory.regions()].map(String)),
    bindings: [vm.memory, other.memory, space].map(({ bindings }) => bindings.map(({ vmaps }) => vmaps.length)),
    users: [vm.memory, other.memory, space].map(({ users }) => users.length),
    region: [region.readOnly, region.name],
    device: String(device),
    slots: [vm, other].map(({ memslots }) => [...memslots].map(({ id, baseGfn, npages }) => [id, baseGfn, npages])),
    ports: vm.io.ports.regions.length,
    vcpus: [vm.vcpus.length, other.vcpus.length],
    running: vcpu.running,
    dirty: [vm.dirtyPages.started, vm.dirtyPages.count],
    pieces: reservation.pieces,
    served: [faults, writes].map((served) => [served?.closed, served?.mapping.pins]),
    written: writes?.count,
    memfd: memfd?.closed,
    bytes: vm.memory.readU32(0x4000),
  };
}

function verify({ kvm, vm }: Machine, works: boolean): void {
  for (const region of vm.memory.regions()) {
    if ('mapping' in region) expectReadable(vm, region);
  }
  if (!works) return;
  if (vm.memory.find(0x4000) !== undefined) {
    vm.memory.writeU32(0x4000, 0x1234_5678);
    if (vm.memory.readU32(0x4000) !== 0x1234_5678) throw new Error('memory does not hold what was written');
    vm.memory.writeU32(0x4000, 0);
  }
  if (kvm.checkExtension(CAP.USER_MEMORY) !== 1) throw new Error('the kernel does not answer');
  const mapping = kvm.mapAnonymous(UNIT);
  const region = vm.memory.addRam(FAR, mapping);
  vm.memory.remove(region);
  mapping.close();
}

/** A region's memory is there for as long as the region is. */
function expectReadable(vm: Vm, { gpa, mapping }: MemoryRegion): void {
  if (mapping.kind !== 'reservation' && mapping.pins === 0) throw new Error(`${mapping.kind} memory is not pinned`);
  if (mapping.kind === 'anonymous') vm.memory.readU8(gpa);
}

function leftOf({ kvm, ram, spare, reservation, faults, writes }: Machine): string | undefined {
  const pins = [ram, spare, reservation, faults?.mapping, writes?.mapping].map((mapping) => mapping?.pins ?? 0);
  if (pins.some((count) => count !== 0)) return `mappings are pinned ${pins.join(', ')} times`;
  const free = freeDescriptor(kvm);
  return free === FIRST_FD ? undefined : `the first descriptor that is free is ${free}, not ${FIRST_FD}`;
}

export function arenaOf(arch: Arch): Arena<Machine> {
  return {
    make: () => make(arch),
    close,
    state,
    verify,
    leftOf,
    // Nothing waits for anybody but this thread.
    patience: 5,
    sabotage: {
      'closes the VM': ({ vm }) => vm.close(),
      'closes the mapping': ({ spare }) => spare.close(),
      'closes the eventfd': ({ eventfd }) => eventfd.close(),
      'closes the guest_memfd': ({ memfd }) => memfd?.close(),
      'closes the reservation': ({ reservation }) => reservation.close(),
      'closes what serves pages': ({ faults, writes }) => {
        faults?.close();
        writes?.close();
      },
      'closes everything': close,
    },
  };
}
