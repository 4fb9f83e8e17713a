// What only x86_64 has.
#if defined(__x86_64__)

#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {
namespace {

int64_t SetTssAddr(Environment&, OwnFd vm, uint64_t addr) { return Ioctl(vm.number, KVM_SET_TSS_ADDR, addr); }

int64_t SetIdentityMapAddr(Environment&, OwnFd vm, uint64_t addr) {
  return Ioctl(vm.number, KVM_SET_IDENTITY_MAP_ADDR, &addr);
}

}  // namespace

const char* const kArch = "x86_64";

void ExportArchitecture(Exports exports) {
  Exports group = exports.Group("x86_64");
  group.Add<SetTssAddr>("setTssAddr");
  group.Add<SetIdentityMapAddr>("setIdentityMapAddr");
}

}  // namespace kvm_bridge

#endif
