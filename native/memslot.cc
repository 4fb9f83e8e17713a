// Memslots, dirty tracking, guest_memfd, memory attributes, device attributes.
#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {
namespace {

using Use = CallerBuffer::Use;

int64_t SetRegion(Environment& environment, const OwnFd& fd, unsigned long request, uint32_t slot, uint64_t size,
                  uint64_t hva, void* region) {
  VmSlots* const slots = fd.descriptor->slots.get();
  // What is no VM gets the kernel's answer.
  if (slots == nullptr || fd.descriptor->kind != Kind::vm) return Ioctl(fd.number, request, region);
  return slots->SetRegion(environment.mappings, fd.number, request, slot, size, hva, region);
}

int64_t SetUserMemoryRegion(Environment& environment, OwnFd vm, uint32_t slot, uint32_t flags, uint64_t gpa,
                            uint64_t size, uint64_t hva) {
  kvm_userspace_memory_region region = {};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = gpa;
  region.memory_size = size;
  region.userspace_addr = hva;
  return SetRegion(environment, vm, KVM_SET_USER_MEMORY_REGION, slot, size, hva, &region);
}

int64_t SetUserMemoryRegion2(Environment& environment, OwnFd vm, uint32_t slot, uint32_t flags, uint64_t gpa,
                             uint64_t size, uint64_t hva, Word32 guest_memfd, uint64_t guest_memfd_offset) {
  UserspaceMemoryRegion2 region = {};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = gpa;
  region.memory_size = size;
  region.userspace_addr = hva;
  region.guest_memfd_offset = guest_memfd_offset;
  region.guest_memfd = guest_memfd.bits;
  return SetRegion(environment, vm, KVM_SET_USER_MEMORY_REGION2, slot, size, hva, &region);
}

int64_t GetDirtyLog(Environment& environment, OwnFd vm, uint32_t slot, Bytes bitmap) {
  // How much the kernel fills depends on the slot, which the call doesn't say.
  const bool is_enough = !bitmap.is_null && environment.mappings.EndsAtGuard(bitmap.data, bitmap.length);
  const CallerBuffer buffer(environment.scratch, bitmap, is_enough, Use::filled_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_dirty_log log = {};
  log.slot = slot;
  log.dirty_bitmap = buffer.address();
  return Ioctl(vm.number, KVM_GET_DIRTY_LOG, &log);
}

int64_t ClearDirtyLog(Environment& environment, OwnFd vm, uint32_t slot, uint64_t first_page, uint32_t num_pages,
                      Bytes bitmap) {
  const bool is_enough = bitmap.length >= (uint64_t{num_pages} + 63) / 64 * 8;
  const CallerBuffer buffer(environment.scratch, bitmap, is_enough, Use::read_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_clear_dirty_log log = {};
  log.slot = slot;
  log.num_pages = num_pages;
  log.first_page = first_page;
  log.dirty_bitmap = buffer.address();
  return Ioctl(vm.number, KVM_CLEAR_DIRTY_LOG, &log);
}

int64_t ResetDirtyRings(Environment&, OwnFd vm) { return Ioctl(vm.number, KVM_RESET_DIRTY_RINGS); }

int64_t CreateGuestMemfdCall(Environment& environment, OwnFd vm, uint64_t size, uint64_t flags) {
  CreateGuestMemfd create = {};
  create.size = size;
  create.flags = flags;
  return environment.descriptors.Adopt(Ioctl(vm.number, KVM_CREATE_GUEST_MEMFD, &create), Kind::other);
}

int64_t SetMemoryAttributes(Environment&, OwnFd vm, uint64_t address, uint64_t size, uint64_t attributes,
                            uint64_t flags) {
  MemoryAttributes set = {address, size, attributes, flags};
  return Ioctl(vm.number, KVM_SET_MEMORY_ATTRIBUTES, &set);
}

int64_t PreFaultMemoryCall(Environment& environment, OwnFd vcpu, Array<uint64_t> range, uint64_t flags) {
  if (IsBusy(vcpu)) return -EBUSY;
  if (environment.mappings.IsServing()) return -EDEADLK;
  if (range.length < 2) return -EFAULT;
  PreFaultMemory prefault = {};
  prefault.gpa = range.data[0];
  prefault.size = range.data[1];
  prefault.flags = flags;
  const int64_t result = RestartedIoctl(vcpu.number, KVM_PRE_FAULT_MEMORY, &prefault);
  range.data[0] = prefault.gpa;
  range.data[1] = prefault.size;
  return result;
}

// How many bytes an attribute has only the kernel knows.
int64_t DeviceAttr(Environment& environment, OwnFd fd, unsigned long request, uint32_t group, uint64_t attr,
                   Bytes value, Use use) {
  if (IsBusy(fd)) return -EBUSY;
  const CallerBuffer buffer(environment.scratch, value, false, use);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_device_attr device_attr = {};
  device_attr.group = group;
  device_attr.attr = attr;
  device_attr.addr = AddressOf(buffer.address());
  return Ioctl(fd.number, request, &device_attr);
}

int64_t SetDeviceAttr(Environment& environment, OwnFd fd, uint32_t group, uint64_t attr, Bytes value) {
  return DeviceAttr(environment, fd, KVM_SET_DEVICE_ATTR, group, attr, value, Use::read_by_kernel);
}

int64_t GetDeviceAttr(Environment& environment, OwnFd fd, uint32_t group, uint64_t attr, Bytes value) {
  return DeviceAttr(environment, fd, KVM_GET_DEVICE_ATTR, group, attr, value, Use::filled_by_kernel);
}

int64_t HasDeviceAttr(Environment& environment, OwnFd fd, uint32_t group, uint64_t attr) {
  const Bytes nothing = {nullptr, 0, true};
  return DeviceAttr(environment, fd, KVM_HAS_DEVICE_ATTR, group, attr, nothing, Use::read_by_kernel);
}

}  // namespace

void ExportMemslot(Exports exports) {
  exports.Add<SetUserMemoryRegion>("setUserMemoryRegion");
  exports.Add<SetUserMemoryRegion2>("setUserMemoryRegion2");
  exports.Add<GetDirtyLog>("getDirtyLog");
  exports.Add<ClearDirtyLog>("clearDirtyLog");
  exports.Add<ResetDirtyRings>("resetDirtyRings");
  exports.Add<CreateGuestMemfdCall>("createGuestMemfd");
  exports.Add<SetMemoryAttributes>("setMemoryAttributes");
  exports.Add<PreFaultMemoryCall>("preFaultMemory");
  exports.Add<SetDeviceAttr>("setDeviceAttr");
  exports.Add<GetDeviceAttr>("getDeviceAttr");
  exports.Add<HasDeviceAttr>("hasDeviceAttr");
}

}  // namespace kvm_bridge
