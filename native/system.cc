// /dev/kvm and VMs: opening, capabilities, creation; and what works on any descriptor of ours.
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {
namespace {

int64_t OpenKvm(Environment& environment) {
  int fd;
  do {
    fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return environment.descriptors.Adopt(fd < 0 ? -errno : fd, Kind::other);
}

int64_t Close(Environment& environment, OwnFd fd) { return environment.descriptors.Close(fd.number); }

int64_t GetApiVersion(Environment&, OwnFd kvm, uint64_t argument) {
  return Ioctl(kvm.number, KVM_GET_API_VERSION, argument);
}

int64_t CheckExtension(Environment&, OwnFd fd, uint64_t cap) { return Ioctl(fd.number, KVM_CHECK_EXTENSION, cap); }

int64_t CreateVm(Environment& environment, OwnFd kvm, uint64_t type) {
  return environment.descriptors.Adopt(RestartedIoctl(kvm.number, KVM_CREATE_VM, type), Kind::other);
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
  return environment.descriptors.Adopt(RestartedIoctl(vm.number, KVM_CREATE_VCPU, id), Kind::vcpu);
}

// The kind of descriptor that a request returns, so that one made by ioctlUnchecked is ours to use and to close.
Kind KindReturned(uint32_t request) {
  switch (request) {
    case KVM_CREATE_VM:
    case KVM_CREATE_GUEST_MEMFD:
    case KVM_GET_STATS_FD:
      return Kind::other;
    case KVM_CREATE_VCPU:
      return Kind::vcpu;
#if defined(__powerpc64__)
    case KVM_PPC_GET_HTAB_FD:
      return Kind::htab;
#endif
    default:
      return Kind::none;
  }
}

int64_t IoctlUnchecked(Environment& environment, OwnFd fd, uint32_t request, ValueOrStructure argument) {
  if (request == KVM_RUN && fd.descriptor->vcpu && argument.is_value && argument.value == 0) {
    return RunVcpu(environment, fd, 0);
  }
  if (IsBusy(fd)) return -EBUSY;
  int64_t result;
  if (argument.is_value) {
    result = Ioctl(fd.number, request, argument.value);
  } else {
#if defined(__powerpc64__)
    // Some kernels follow a null pointer when asked for the order 0.
    uint32_t order;
    if (request == KVM_PPC_ALLOCATE_HTAB && argument.structure.length >= sizeof order) {
      memcpy(&order, argument.structure.data, sizeof order);
      if (order == 0) return -EINVAL;
    }
#endif
    const CallerBuffer structure(environment.scratch, argument.structure, false, CallerBuffer::Use::filled_by_kernel);
    if (!structure.has_memory()) return -ENOMEM;
    result = Ioctl(fd.number, request, structure.address());
    if (request == KVM_CREATE_DEVICE && result == 0) {
      kvm_create_device device;
      memcpy(&device, structure.address(), sizeof device);
      const bool is_test = (device.flags & KVM_CREATE_DEVICE_TEST) != 0;
      if (!is_test) environment.descriptors.Adopt(device.fd, Kind::other);
    }
  }
  const Kind kind = KindReturned(request);
  return kind == Kind::none ? result : environment.descriptors.Adopt(result, kind);
}

int64_t ReadFd(Environment&, OwnFd fd, Array<uint8_t> into) {
  const ssize_t count = read(fd.number, into.data, into.length);
  return count < 0 ? -errno : count;
}

int64_t WriteFd(Environment& environment, OwnFd fd, Array<uint8_t> from) {
  // The kernel reads past a truncated HTAB chunk: it forgets the header's 8 bytes when it compares with the count.
  const bool stays_within = fd.descriptor->kind != Kind::htab;
  const Bytes bytes = {from.data, from.length, false};
  const CallerBuffer buffer(environment.scratch, bytes, stays_within, CallerBuffer::Use::read_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  const ssize_t count = write(fd.number, buffer.address(), from.length);
  return count < 0 ? -errno : count;
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
}

}  // namespace kvm_bridge
