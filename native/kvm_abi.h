// The kernel's ABI as the addon uses it: linux/kvm.h, and what older versions of that header lack.
#ifndef KVM_BRIDGE_KVM_ABI_H_
#define KVM_BRIDGE_KVM_ABI_H_

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>

namespace kvm_bridge {

// Structures of our own names, so that neither an old nor a newer linux/kvm.h gets in the way.

struct UserspaceMemoryRegion2 {
  uint32_t slot;
  uint32_t flags;
  uint64_t guest_phys_addr;
  uint64_t memory_size;
  uint64_t userspace_addr;
  uint64_t guest_memfd_offset;
  uint32_t guest_memfd;
  uint32_t pad1;
  uint64_t pad2[14];
};
static_assert(sizeof(UserspaceMemoryRegion2) == 160, "layout of the uAPI");

struct CreateGuestMemfd {
  uint64_t size;
  uint64_t flags;
  uint64_t reserved[6];
};
static_assert(sizeof(CreateGuestMemfd) == 64, "layout of the uAPI");

struct MemoryAttributes {
  uint64_t address;
  uint64_t size;
  uint64_t attributes;
  uint64_t flags;
};
static_assert(sizeof(MemoryAttributes) == 32, "layout of the uAPI");

struct PreFaultMemory {
  uint64_t gpa;
  uint64_t size;
  uint64_t flags;
  uint64_t padding[5];
};
static_assert(sizeof(PreFaultMemory) == 64, "layout of the uAPI");

#ifndef KVM_SET_USER_MEMORY_REGION2
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, ::kvm_bridge::UserspaceMemoryRegion2)
#endif
#ifndef KVM_CREATE_GUEST_MEMFD
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, ::kvm_bridge::CreateGuestMemfd)
#endif
#ifndef KVM_SET_MEMORY_ATTRIBUTES
#define KVM_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, ::kvm_bridge::MemoryAttributes)
#endif
#ifndef KVM_PRE_FAULT_MEMORY
#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, ::kvm_bridge::PreFaultMemory)
#endif

// What the kernel answers: a number >= 0, or -errno.

// KVM_SET_SIGNAL_MASK: the structure's array without a length takes room in C++, and so the header's number is another one there.
constexpr unsigned long kSetSignalMask = _IOC(_IOC_WRITE, KVMIO, 0x8b, sizeof(uint32_t));

inline int64_t Ioctl(int fd, unsigned long request, unsigned long argument = 0) {
  const int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

inline int64_t Ioctl(int fd, unsigned long request, void* structure) {
  const int result = ioctl(fd, request, structure);
  return result < 0 ? -errno : result;
}

// For requests that give up on any pending signal before they have done anything: nobody can tell that they ran twice.
template <typename Argument>
int64_t RestartedIoctl(int fd, unsigned long request, Argument argument) {
  int64_t result;
  do {
    result = Ioctl(fd, request, argument);
  } while (result == -EINTR);
  return result;
}

// An address inside a structure. uint64_t in the ABI, whatever the pointer's type.
inline uint64_t AddressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

}  // namespace kvm_bridge

#endif
