import { partOf } from '../base/part-of.ts';
import type { KvmCalls, S390xCalls, UserfaultfdCalls } from '../calls/kvm-calls.ts';
import { ERRNO } from '../uapi/errno.ts';
import { POLL } from '../uapi/flags.ts';
import { type RequestName, requestName } from '../uapi/requests.ts';
import {
  PM_SCAN,
  UFFD_EVENT_PAGEFAULT,
  UFFD_FEATURE,
  UFFD_MSG,
  UFFD_PAGEFAULT_FLAG,
  UFFD_USER_MODE_ONLY,
  UFFDIO_COPY_MODE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_WRITEPROTECT_MODE,
} from '../uapi/userfaultfd.ts';
import type { EmulatedHostMemory } from './host-memory.ts';
import type { Machine } from './machine.ts';
import type { EmulatedMemslot } from './memslots.ts';
import type { OpenFile } from './open-file.ts';
import { PollQueue } from './poll.ts';
import type { FaultReceiver } from './served-memory.ts';
import { EmulatedVm } from './vm.ts';

/** UFFDIO_REGISTER, UFFDIO_UNREGISTER and UFFDIO_API, which every userfaultfd has. */
const API_IOCTLS = 0x8000_0000_0000_0003n;

/** The feature, with the release that it came with. */
const FEATURES: readonly (readonly [feature: number, major: number, minor: number])[] = [
  [UFFD_FEATURE.EXACT_ADDRESS, 5, 18],
  [UFFD_FEATURE.POISON, 6, 6],
  [UFFD_FEATURE.MOVE, 6, 8],
];

/** Those that need a bit of a page table entry that not every architecture has. */
const PROTECTION_FEATURES: readonly (readonly [feature: number, major: number, minor: number])[] = [
  [UFFD_FEATURE.PAGEFAULT_FLAG_WP, 5, 7],
  [UFFD_FEATURE.WP_HUGETLBFS_SHMEM, 5, 19],
  [UFFD_FEATURE.WP_UNPOPULATED, 6, 4],
  [UFFD_FEATURE.WP_ASYNC, 6, 7],
];

/** What there has been since 4.14. */
const OLD_FEATURES =
  UFFD_FEATURE.EVENT_FORK |
  UFFD_FEATURE.EVENT_REMAP |
  UFFD_FEATURE.EVENT_REMOVE |
  UFFD_FEATURE.MISSING_HUGETLBFS |
  UFFD_FEATURE.MISSING_SHMEM |
  UFFD_FEATURE.EVENT_UNMAP |
  UFFD_FEATURE.SIGBUS |
  UFFD_FEATURE.THREAD_ID;

const MINOR_FEATURES = UFFD_FEATURE.MINOR_HUGETLBFS | UFFD_FEATURE.MINOR_SHMEM;

function featuresOf({ arch, release }: Machine): number {
  const has = (list: typeof FEATURES): number =>
    list.reduce((all, [feature, major, minor]) => (release.since(major, minor) ? all | feature : all), 0);
  const protects = arch === 'x86_64' || (arch === 'aarch64' && release.since(6, 10));
  const minor = arch === 's390x' || arch === 'ppc64' ? 0 : MINOR_FEATURES;
  return OLD_FEATURES | minor | has(FEATURES) | (protects ? has(PROTECTION_FEATURES) : 0);
}

interface Message {
  readonly hva: number;
  readonly flags: number;
}

/** An emulated userfaultfd. Only faults are told; of the other events nobody asks. */
export class EmulatedUserfaultfd implements OpenFile, FaultReceiver {
  readonly kind = 'userfaultfd';
  /** Undefined before UFFDIO_API. */
  features: number | undefined;
  readonly polled = new PollQueue(() => (this.#messages.length > 0 ? POLL.IN : 0));
  readonly #memory: EmulatedHostMemory;
  readonly #little: boolean;
  readonly #messages: Message[] = [];

  constructor(memory: EmulatedHostMemory, littleEndian: boolean) {
    this.#memory = memory;
    this.#little = littleEndian;
  }

  faulted(hva: number, write: boolean, isProtected: boolean): void {
    const flags = (write ? UFFD_PAGEFAULT_FLAG.WRITE : 0) | (isProtected ? UFFD_PAGEFAULT_FLAG.WP : 0);
    this.#messages.push({ hva, flags });
    this.polled.changed();
  }

  read(into: Uint8Array): number {
    if (this.features === undefined || into.length < UFFD_MSG.structSize) return -ERRNO.EINVAL;
    const told = this.#messages.splice(0, Math.floor(into.length / UFFD_MSG.structSize));
    const view = new DataView(into.buffer, into.byteOffset, into.length);
    for (const [i, { hva, flags }] of told.entries()) {
      const at = i * UFFD_MSG.structSize;
      into.fill(0, at, at + UFFD_MSG.structSize);
      into[at + UFFD_MSG.event] = UFFD_EVENT_PAGEFAULT;
      view.setBigUint64(at + UFFD_MSG.pagefault.flags, BigInt(flags), this.#little);
      view.setBigUint64(at + UFFD_MSG.pagefault.address, BigInt(hva), this.#little);
    }
    return told.length === 0 ? -ERRNO.EAGAIN : told.length * UFFD_MSG.structSize;
  }

  /** It is opened for reading alone. */
  write(): number {
    return -ERRNO.EBADF;
  }

  released(): void {
    this.#memory.served.unregister(this);
  }
}

interface Surroundings {
  readonly machine: Machine;
  readonly memory: EmulatedHostMemory;
  open(file: OpenFile): number;
  file(fd: number): OpenFile | undefined;
}

/** Requests that leave the guest's memory alone; all others may touch it. */
const SPARING: ReadonlySet<RequestName | undefined> = new Set<RequestName>([
  'KVM_GET_API_VERSION',
  'KVM_CREATE_VM',
  'KVM_CHECK_EXTENSION',
  'KVM_GET_VCPU_MMAP_SIZE',
  'KVM_CREATE_VCPU',
  'KVM_SET_USER_MEMORY_REGION',
  'KVM_SET_USER_MEMORY_REGION2',
  'KVM_GET_ONE_REG',
  'KVM_SET_ONE_REG',
  'KVM_GET_MP_STATE',
  'KVM_SET_MP_STATE',
]);

/** Descriptors that can't be one in disguise, as a duplicate of the addon's can: the kernel itself says what it has of the requests. */
const OTHERS: ReadonlySet<OpenFile['kind']> = new Set(['vm', 'vcpu', 'memfd', 'htab']);

/** What `_IOC_TYPE` of userfaultfd's requests is. */
const UFFDIO = 0xaa;

/** The calls of userfaultfd, and those of a kernel that would have this thread wait for itself while it serves memory: they refuse, as the addon's do. */
export function withUserfaultfd(kernel: KvmCalls, surroundings: Surroundings): Partial<KvmCalls> {
  const { memory, file } = surroundings;
  const wouldWait = (fd: number): boolean => memory.served.isServing && file(fd) !== undefined;
  const guarded =
    <Arguments extends readonly [number, ...unknown[]]>(call: (...args: Arguments) => number) =>
    (...args: Arguments): number =>
      wouldWait(args[0]) ? -ERRNO.EDEADLK : call(...args);
  /** Changes of slots and of the bus wait for guests, which may be waiting for a page of this thread's. */
  const alone =
    <Arguments extends readonly [number, ...unknown[]]>(call: (...args: Arguments) => number) =>
    (...args: Arguments): number =>
      memory.served.isServing && mayWait(file(args[0]), memory) ? -ERRNO.EDEADLK : call(...args);
  const run = kernel.run.bind(kernel);
  const ioctl = kernel.ioctlUnchecked.bind(kernel);
  const refusing = guarded(ioctl);
  const { s390x } = kernel;
  const touching: Partial<S390xCalls> | undefined = s390x && {
    // The two that are called most, without an array of their arguments.
    memOp: (fd, op, gaddr, size, flags, buf, ar, key, oldValue, sidaOffset) =>
      wouldWait(fd) ? -ERRNO.EDEADLK : s390x.memOp(fd, op, gaddr, size, flags, buf, ar, key, oldValue, sidaOffset),
    getSkeys: guarded(s390x.getSkeys),
    setSkeys: guarded(s390x.setSkeys),
    keyOp: guarded(s390x.keyOp),
    vcpuFault: guarded(s390x.vcpuFault),
  };
  return {
    uffd: userfaultfdCalls(surroundings),
    run: (vcpu: number, timeoutMs: number) => (wouldWait(vcpu) ? -ERRNO.EDEADLK : run(vcpu, timeoutMs)),
    setUserMemoryRegion: alone(kernel.setUserMemoryRegion.bind(kernel)),
    setUserMemoryRegion2: alone(kernel.setUserMemoryRegion2.bind(kernel)),
    ioeventfd: alone(kernel.ioeventfd.bind(kernel)),
    registerCoalescedMmio: alone(kernel.registerCoalescedMmio.bind(kernel)),
    unregisterCoalescedMmio: alone(kernel.unregisterCoalescedMmio.bind(kernel)),
    preFaultMemory: guarded(kernel.preFaultMemory.bind(kernel)),
    ioctlUnchecked: (fd, request, arg) => {
      const kind = file(fd)?.kind;
      if (((request >> 8) & 0xff) === UFFDIO && kind !== undefined && !OTHERS.has(kind)) return -ERRNO.EPERM;
      const name = requestName(request, kernel.arch);
      return SPARING.has(name) ? ioctl(fd, request, arg) : refusing(fd, request, arg);
    },
    ...(s390x === undefined ? {} : { s390x: { ...s390x, ...touching } }),
  };
}

/** Whether a guest of a VM runs that has memory which is served. */
function mayWait(file: OpenFile | undefined, { served, pageSize }: EmulatedHostMemory): boolean {
  if (!(file instanceof EmulatedVm) || ![...file.vcpus.values()].some(({ running }) => running)) return false;
  const isServed = ({ hva, npages }: EmulatedMemslot): boolean =>
    served.serves(Number(hva), Number(hva) + npages * pageSize);
  return file.spaces.some((space) => [...space].some(isServed));
}

/** The calls of userfaultfd and PAGEMAP_SCAN. */
function userfaultfdCalls({ machine, memory, open, file }: Surroundings): UserfaultfdCalls {
  const { pageSize } = machine;
  const available = featuresOf(machine);
  const { served } = memory;

  /** What of a request on a range is wrong before its own checks, or does the rest. */
  const onRange = (fd: number, hva: number, length: number, act: (uffd: EmulatedUserfaultfd) => number): number => {
    const found = file(fd);
    if (found === undefined) return -ERRNO.EBADF;
    if (!(found instanceof EmulatedUserfaultfd)) return -ERRNO.ENOTTY;
    if (found.features === undefined) return -ERRNO.EINVAL;
    return hva % pageSize !== 0 || length % pageSize !== 0 || length === 0 ? -ERRNO.EINVAL : act(found);
  };

  /** Whether a range is whole pages of what is mapped there, which may be huge ones. */
  const isWhole = (hva: number, length: number): boolean => {
    const unit = served.unitAt(hva);
    return hva % unit === 0 && length % unit === 0;
  };

  /** Why a page of a range can't be brought: 0 or −errno. */
  const refusal = (page: number, length: number, isZero: boolean, protects: boolean): number => {
    if (protects && (served.modeAt(page)! & UFFDIO_REGISTER_MODE.WP) === 0) return -ERRNO.EINVAL;
    // There is no huge page of zeros.
    if (!isWhole(page, length) || (isZero && served.unitAt(page) !== pageSize)) return -ERRNO.EINVAL;
    // Zeros are brought where there is nothing; bytes also where something is protected that isn't there.
    return served.isPresent(page) || (isZero && served.isProtected(page)) ? -ERRNO.EEXIST : 0;
  };

  /** Puts pages where they are missing. */
  const bring = (hva: number, length: number, mode: number, bytes: Uint8Array | undefined): number => {
    if (!served.isOne(hva, hva + length)) return -ERRNO.ENOENT;
    const unit = served.unitAt(hva);
    for (let done = 0; done < length; done += unit) {
      const page = hva + done;
      const refused = refusal(page, length, bytes === undefined, (mode & UFFDIO_COPY_MODE.WP) !== 0);
      if (refused !== 0) return done > 0 ? done : refused;
      served.brought(page);
      if (bytes !== undefined) memory.fill(page, partOf(bytes, done, done + unit));
      served.protect(page, page + unit, (mode & UFFDIO_COPY_MODE.WP) !== 0);
      if ((mode & UFFDIO_COPY_MODE.DONTWAKE) === 0) served.wake(page, page + unit);
    }
    return length;
  };

  return {
    userfaultfd: (flags) => {
      if ((flags & ~UFFD_USER_MODE_ONLY) !== 0) return -ERRNO.EINVAL;
      return open(new EmulatedUserfaultfd(memory, machine.littleEndian));
    },
    uffdApi: (fd, api) => {
      const found = file(fd);
      if (found === undefined) return -ERRNO.EBADF;
      if (api.length < 2) return -ERRNO.EFAULT;
      if (!(found instanceof EmulatedUserfaultfd)) return -ERRNO.ENOTTY;
      const wanted = api[0]!;
      if ((wanted & ~BigInt(available)) !== 0n || found.features !== undefined) return -ERRNO.EINVAL;
      found.features = Number(wanted);
      api[0] = BigInt(available);
      api[1] = API_IOCTLS;
      return 0;
    },
    uffdRegister: (fd, hva, length, mode) => {
      const found = file(fd);
      if (found === undefined) return -ERRNO.EBADF;
      const [start, end, modes] = [Number(hva), Number(hva) + Number(length), Number(mode)];
      const mapping = memory.mappingAround(start, Number(length));
      if (!(found instanceof EmulatedUserfaultfd) || mapping === undefined || mapping.isReservation)
        return -ERRNO.EINVAL;
      const features = found.features ?? 0;
      const resolvesStores = (features & UFFD_FEATURE.WP_ASYNC) !== 0;
      const waits = (modes & ~(resolvesStores ? UFFDIO_REGISTER_MODE.WP : 0)) !== 0;
      const server = served.servesFor(mapping.hva, mapping.hva + mapping.length);
      if (waits && (mapping.lent || (server !== undefined && server !== found))) return -ERRNO.EBUSY;
      return onRange(fd, start, Number(length), () => {
        const known =
          UFFDIO_REGISTER_MODE.MISSING |
          ((available & UFFD_FEATURE.PAGEFAULT_FLAG_WP) === 0 ? 0 : UFFDIO_REGISTER_MODE.WP) |
          ((available & UFFD_FEATURE.MINOR_SHMEM) === 0 ? 0 : UFFDIO_REGISTER_MODE.MINOR);
        if (modes === 0 || (modes & ~known) !== 0) return -ERRNO.EINVAL;
        if (waits && (memory.hasFile(start, end) || memory.hasSharedHuge(start, end))) return -ERRNO.EINVAL;
        if (!isWhole(start, end - start)) return -ERRNO.EINVAL;
        if ((modes & UFFDIO_REGISTER_MODE.MINOR) !== 0 && memory.hasPrivate(start, end)) return -ERRNO.EINVAL;
        if (served.ownersIn(start, end).some((owner) => owner !== found)) return -ERRNO.EBUSY;
        if (waits) memory.hideViews(mapping);
        const protectsMissing = resolvesStores || (features & UFFD_FEATURE.WP_UNPOPULATED) !== 0;
        served.register(found, start, end, modes, { resolvesStores, protectsMissing });
        return 0;
      });
    },
    uffdUnregister: (fd, hva, length) => {
      const [start, size] = [Number(hva), Number(length)];
      const found = file(fd);
      if (found === undefined) return -ERRNO.EBADF;
      if (!(found instanceof EmulatedUserfaultfd) || memory.mappingAround(start, size) === undefined)
        return -ERRNO.EINVAL;
      return onRange(fd, start, size, (uffd) => {
        if (!isWhole(start, size)) return -ERRNO.EINVAL;
        const owners = served.ownersIn(start, start + size);
        // Before 6.17 whoever asks ends what anybody has registered.
        if (machine.release.since(6, 17) && owners.some((owner) => owner !== uffd)) return -ERRNO.EINVAL;
        for (const owner of owners) served.unregister(owner, start, start + size);
        return 0;
      });
    },
    uffdCopy: (fd, hva, from, mode) =>
      onRange(fd, Number(hva), from.length, () => {
        const known = UFFDIO_COPY_MODE.DONTWAKE | UFFDIO_COPY_MODE.WP;
        return (Number(mode) & ~known) !== 0 ? -ERRNO.EINVAL : bring(Number(hva), from.length, Number(mode), from);
      }),
    uffdZeropage: (fd, hva, length, mode) =>
      onRange(fd, Number(hva), Number(length), () => {
        if ((Number(mode) & ~UFFDIO_COPY_MODE.DONTWAKE) !== 0) return -ERRNO.EINVAL;
        return bring(Number(hva), Number(length), Number(mode), undefined);
      }),
    uffdWriteprotect: (fd, hva, length, mode) =>
      onRange(fd, Number(hva), Number(length), () => {
        const { WP, DONTWAKE } = UFFDIO_WRITEPROTECT_MODE;
        const [start, end, bits] = [Number(hva), Number(hva) + Number(length), Number(mode)];
        if ((bits & ~(WP | DONTWAKE)) !== 0 || bits === (WP | DONTWAKE)) return -ERRNO.EINVAL;
        let stop = start;
        while (stop < end && ((served.modeAt(stop) ?? 0) & UFFDIO_REGISTER_MODE.WP) !== 0) stop += pageSize;
        if (stop > start && !isWhole(start, end - start)) return -ERRNO.EINVAL;
        // What comes before pages that can't be protected is.
        served.protect(start, stop, (bits & WP) !== 0);
        if (stop < end) return -ERRNO.ENOENT;
        if (bits === 0) served.wake(start, end);
        return 0;
      }),
    uffdWake: (fd, hva, length) =>
      onRange(fd, Number(hva), Number(length), () => {
        served.wake(Number(hva), Number(hva) + Number(length));
        return 0;
      }),
    pagemapScan: (hva, length, flags, inverted, mask, anyOf, bitmap) => {
      const [start, size] = [Number(hva), Number(length)];
      if (start % pageSize !== 0 || size % pageSize !== 0) return -ERRNO.EINVAL;
      if (memory.mappingAround(start, size) === undefined) return -ERRNO.EINVAL;
      if (bitmap.length < Math.ceil(size / pageSize / 8)) return -ERRNO.EFAULT;
      if (!machine.release.since(6, 7)) return -ERRNO.ENOTTY;
      const known = PM_SCAN.WP_MATCHING | PM_SCAN.CHECK_WPASYNC;
      // Of the categories it is only asked which pages were written.
      if ((flags & ~known) !== 0 || BigInt(inverted) !== 0n || BigInt(mask) !== 2n || BigInt(anyOf) !== 0n) {
        return -ERRNO.EINVAL;
      }
      const [protects, checks] = [PM_SCAN.WP_MATCHING, PM_SCAN.CHECK_WPASYNC].map((bit) => (flags & bit) !== 0);
      const found: number[] = [];
      const isDone = served.written(start, start + size, protects!, checks!, (page) => void found.push(page));
      if (!isDone) return -ERRNO.EPERM;
      for (const page of found) {
        const index = (page - start) / pageSize;
        bitmap[index >> 3]! |= 1 << (index & 7);
      }
      return found.length;
    },
  };
}
