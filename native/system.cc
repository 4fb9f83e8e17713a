// /dev/kvm and VMs: opening, capabilities, creation; and what works on any descriptor of ours.
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "call.h"
#include "kvm_abi.h"
#include "userfaultfd_abi.h"

namespace kvm_bridge {
namespace {

int64_t OpenKvm(Environment& environment) {
  int fd;
  do {
    fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return environment.descriptors.Adopt(fd < 0 ? -errno : fd, Kind::other);
}

int64_t Close(Environment& environment, OwnFd fd) {
  // Others may have the same userfaultfd, which would serve on, unknown to us.
  if (fd.descriptor->kind == Kind::userfaultfd) environment.mappings.EndServing(fd.number);
  return environment.descriptors.Close(fd.number);
}

int64_t GetApiVersion(Environment&, OwnFd kvm, uint64_t argument) {
  return Ioctl(kvm.number, KVM_GET_API_VERSION, argument);
}

int64_t CheckExtension(Environment&, OwnFd fd, uint64_t cap) { return Ioctl(fd.number, KVM_CHECK_EXTENSION, cap); }

int64_t CreateVm(Environment& environment, OwnFd kvm, uint64_t type) {
  return environment.descriptors.AdoptVm(RestartedIoctl(kvm.number, KVM_CREATE_VM, type));
}

int64_t GetVcpuMmapSize(Environment&, OwnFd kvm, uint64_t argument) {
  return Ioctl(kvm.number, KVM_GET_VCPU_MMAP_SIZE, argument);
}

int64_t EnableCap(Environment&, OwnFd fd, uint32_t cap, uint32_t flags, CapArguments arguments) {
  if (IsBusy(fd)) return -EBUSY;
  kvm_enable_cap enable = {};
  enable.cap = cap;
  enable.flags = flags;
  static_assert(sizeof enable.args == sizeof arguments.values, "four arguments");
  memcpy(enable.args, arguments.values, sizeof enable.args);
  return Ioctl(fd.number, KVM_ENABLE_CAP, &enable);
}

int64_t CreateVcpu(Environment& environment, OwnFd vm, uint64_t id) {
  return environment.descriptors.AdoptVcpu(RestartedIoctl(vm.number, KVM_CREATE_VCPU, id), vm);
}

// Takes over the descriptor that a request returns, so that one made by ioctlUnchecked is ours to use and to close.
int64_t AdoptReturned(Environment& environment, const OwnFd& fd, uint32_t request, int64_t result) {
  DescriptorTable& descriptors = environment.descriptors;
  switch (request) {
    case KVM_CREATE_VM:
      return descriptors.AdoptVm(result);
    case KVM_CREATE_VCPU:
      return descriptors.AdoptVcpu(result, fd);
    case KVM_CREATE_GUEST_MEMFD:
    case KVM_GET_STATS_FD:
      return descriptors.Adopt(result, Kind::other);
#if defined(__powerpc64__)
    case KVM_PPC_GET_HTAB_FD:
      return descriptors.Adopt(result, Kind::htab);
#endif
    default:
      return result;
  }
}

// No request finds an address there.
constexpr uint64_t kNoPointer = 4096;

// Whether the argument is a number by the kernel's documentation. All others take it for an address.
bool TakesNumber(uint32_t request) {
  switch (request) {
    case KVM_GET_API_VERSION:
    case KVM_CREATE_VM:
    case KVM_CHECK_EXTENSION:
    case KVM_GET_VCPU_MMAP_SIZE:
    case KVM_CREATE_VCPU:
    case KVM_CREATE_IRQCHIP:
    case KVM_SET_BOOT_CPU_ID:
    case KVM_SET_NR_MMU_PAGES:
    case KVM_GET_NR_MMU_PAGES:
    case KVM_SET_TSS_ADDR:
    case KVM_SET_TSC_KHZ:
    case KVM_GET_TSC_KHZ:
    case KVM_NMI:
    case KVM_SMI:
    case KVM_KVMCLOCK_CTRL:
    case KVM_S390_ENABLE_SIE:
    case KVM_S390_INITIAL_RESET:
    case KVM_S390_VCPU_FAULT:
    case KVM_S390_NORMAL_RESET:
    case KVM_S390_CLEAR_RESET:
    case KVM_RESET_DIRTY_RINGS:
      return true;
    default:
      return false;
  }
}

// The requests whose structure has a memslot in it, which is not to lie over memory of others.
bool IsSetRegion(uint32_t request, size_t length) {
  return (request == KVM_SET_USER_MEMORY_REGION && length >= sizeof(kvm_userspace_memory_region)) ||
         (request == KVM_SET_USER_MEMORY_REGION2 && length >= sizeof(UserspaceMemoryRegion2));
}

// `structure` is a copy that nobody else can change between the look at it and the call.
int64_t IoctlOverStructure(Environment& environment, OwnFd fd, uint32_t request, void* structure, size_t length) {
  if (fd.descriptor->slots && fd.descriptor->kind == Kind::vm && IsSetRegion(request, length)) {
    kvm_userspace_memory_region region;
    memcpy(&region, structure, sizeof region);
    return fd.descriptor->slots->SetRegion(environment.mappings, fd.number, request, region.slot, region.memory_size,
                                           region.userspace_addr, structure);
  }
#if defined(__powerpc64__)
  // Some kernels follow a null pointer when asked for the order 0.
  uint32_t order;
  if (request == KVM_PPC_ALLOCATE_HTAB && length >= sizeof order) {
    memcpy(&order, structure, sizeof order);
    if (order == 0) return -EINVAL;
  }
#endif
  const int64_t result = Ioctl(fd.number, request, structure);
  if (request != KVM_CREATE_DEVICE || result != 0) return result;
  kvm_create_device device;
  memcpy(&device, structure, sizeof device);
  if ((device.flags & KVM_CREATE_DEVICE_TEST) != 0) return result;
  const int64_t adopted = environment.descriptors.Adopt(static_cast<int>(device.fd), Kind::other);
  return adopted < 0 ? adopted : result;
}

// Requests that leave the guest's memory alone. All others may touch it, and no signal gets a thread out that waits for a page there.
bool SparesMemory(uint32_t request) {
  switch (request) {
    case KVM_GET_API_VERSION:
    case KVM_CREATE_VM:
    case KVM_CHECK_EXTENSION:
    case KVM_GET_VCPU_MMAP_SIZE:
    case KVM_CREATE_VCPU:
    case KVM_SET_USER_MEMORY_REGION:
    case KVM_SET_USER_MEMORY_REGION2:
    case KVM_GET_REGS:
    case KVM_SET_REGS:
    case KVM_GET_SREGS:
    case KVM_GET_FPU:
    case KVM_SET_FPU:
    case KVM_GET_ONE_REG:
    case KVM_SET_ONE_REG:
    case KVM_GET_REG_LIST:
    case KVM_GET_MP_STATE:
    case KVM_SET_MP_STATE:
    case KVM_IRQ_LINE:
#if defined(__x86_64__)
    case KVM_GET_MSRS:
    case KVM_GET_SUPPORTED_CPUID:
    case KVM_SET_CPUID2:
    case KVM_GET_CPUID2:
#endif
#if defined(__aarch64__)
    case KVM_ARM_VCPU_INIT:
    case KVM_ARM_PREFERRED_TARGET:
#endif
      return true;
    default:
      return false;
  }
}

int64_t IoctlUnchecked(Environment& environment, OwnFd fd, uint32_t request, ValueOrStructure argument) {
  if (request == KVM_RUN && fd.descriptor->vcpu && argument.is_value && argument.value == 0) {
    return RunVcpu(environment, fd, 0);
  }
  if (IsBusy(fd)) return -EBUSY;
  // Each run sets it for its thread: see RunMask.
  if (request == kSetSignalMask && fd.descriptor->vcpu) return -EPERM;
  // What a userfaultfd serves must be known to us: these requests have calls of their own.
  const Kind kind = fd.descriptor->kind;
  const bool may_be_one = kind == Kind::userfaultfd || kind == Kind::other;
  if (may_be_one && ((request >> 8) & 0xff) == kUffdio) return -EPERM;
  if (environment.mappings.IsServing() && !SparesMemory(request)) return -EDEADLK;
  int64_t result;
  if (argument.is_value) {
    if (argument.value >= kNoPointer && !TakesNumber(request)) return -EFAULT;
    result = Ioctl(fd.number, request, argument.value);
  } else {
    const CallerBuffer structure(environment.scratch, argument.structure, false, CallerBuffer::Use::filled_by_kernel);
    if (!structure.has_memory()) return -ENOMEM;
    result = IoctlOverStructure(environment, fd, request, structure.address(), argument.structure.length);
  }
  return AdoptReturned(environment, fd, request, result);
}

// Whether it does not block belongs to the open file description, which others may have as well: they say so, or take it back, when they like.
void Unblock(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

// As long as a register: of a plain -1 the kernel gets half, which is a position.
constexpr long kOwnPosition = -1;

int64_t ReadFd(Environment&, OwnFd fd, Array<uint8_t> into) {
  if (fd.descriptor->kind == Kind::other && into.length > 0) {
    iovec data = {into.data, into.length};
    const int64_t here = syscall(SYS_preadv2, fd.number, &data, 1, kOwnPosition, kOwnPosition, RWF_NOWAIT);
    if (here >= 0) return here;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != ESPIPE && errno != EPERM) return -errno;
    Unblock(fd.number);
  }
  const ssize_t count = read(fd.number, into.data, into.length);
  return count < 0 ? -errno : count;
}

int64_t WriteFd(Environment& environment, OwnFd fd, Array<uint8_t> from) {
  // The kernel reads past a truncated HTAB chunk: it forgets the header's 8 bytes when it compares with the count.
  const bool stays_within = fd.descriptor->kind != Kind::htab;
  const Bytes bytes = {from.data, from.length, false};
  const CallerBuffer buffer(environment.scratch, bytes, stays_within, CallerBuffer::Use::read_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  if (fd.descriptor->kind == Kind::other) Unblock(fd.number);
  const ssize_t count = write(fd.number, buffer.address(), from.length);
  return count < 0 ? -errno : count;
}

int64_t Poll(Environment& environment, napi_deferred deferred, OwnFd fd, uint32_t events) {
  Watch*& watch = fd.descriptor->watch;
  if ((events & ~uint32_t{POLLIN | POLLOUT}) != 0) return -EINVAL;
  if (events != 0) {
    const int refused = environment.poller.Wait(fd.number, watch, events, deferred);
    return refused == 0 ? kLater : refused;
  }
  if (watch != nullptr) environment.poller.Settle(*watch, 0);
  return 0;
}

}  // namespace

void ExportSystem(Exports exports) {
  exports.Add<OpenKvm>("openKvm");
  exports.Add<Close>("close");
  exports.Add<GetApiVersion>("getApiVersion");
  exports.Add<CheckExtension>("checkExtension");
  exports.Add<CreateVm>("createVm");
  exports.Add<GetVcpuMmapSize>("getVcpuMmapSize");
  exports.Add<EnableCap>("enableCap");
  exports.Add<CreateVcpu>("createVcpu");
  exports.Add<IoctlUnchecked>("ioctlUnchecked");
  exports.Add<ReadFd>("read");
  exports.Add<WriteFd>("write");
  exports.AddAsync<Poll>("poll");
}

}  // namespace kvm_bridge
