// What only ppc64 (Book3S HV) has: the hashed page table.
#if defined(__powerpc64__)

#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {
namespace {

int64_t AllocateHtab(Environment&, OwnFd vm, uint32_t order) {
  // Some kernels follow a null pointer when asked for the order 0.
  if (order == 0) return -EINVAL;
  return Ioctl(vm.number, KVM_PPC_ALLOCATE_HTAB, &order);
}

int64_t GetHtabFd(Environment& environment, OwnFd vm, uint64_t flags, uint64_t start_index) {
  kvm_get_htab_fd get = {};
  get.flags = flags;
  get.start_index = start_index;
  return environment.descriptors.Adopt(Ioctl(vm.number, KVM_PPC_GET_HTAB_FD, &get), Kind::htab);
}

int64_t ResizeHpt(OwnFd vm, unsigned long request, uint64_t flags, uint32_t shift) {
  kvm_ppc_resize_hpt resize = {};
  resize.flags = flags;
  resize.shift = shift;
  return Ioctl(vm.number, request, &resize);
}

int64_t ResizeHptPrepare(Environment&, OwnFd vm, uint64_t flags, uint32_t shift) {
  return ResizeHpt(vm, KVM_PPC_RESIZE_HPT_PREPARE, flags, shift);
}

int64_t ResizeHptCommit(Environment&, OwnFd vm, uint64_t flags, uint32_t shift) {
  return ResizeHpt(vm, KVM_PPC_RESIZE_HPT_COMMIT, flags, shift);
}

int64_t GetSmmuInfo(Environment& environment, OwnFd vm, Bytes info) {
  const bool is_enough = info.length >= sizeof(kvm_ppc_smmu_info);
  const CallerBuffer buffer(environment.scratch, info, is_enough, CallerBuffer::Use::filled_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  return Ioctl(vm.number, KVM_PPC_GET_SMMU_INFO, buffer.address());
}

int64_t ConfigureV3Mmu(Environment&, OwnFd vm, uint64_t flags, uint64_t process_table) {
  kvm_ppc_mmuv3_cfg config = {};
  config.flags = flags;
  config.process_table = process_table;
  return Ioctl(vm.number, KVM_PPC_CONFIGURE_V3_MMU, &config);
}

}  // namespace

const char* const kArch = "ppc64";

void ExportArchitecture(Exports exports) {
  Exports group = exports.Group("ppc64");
  group.Add<AllocateHtab>("allocateHtab");
  group.Add<GetHtabFd>("getHtabFd");
  group.Add<ResizeHptPrepare>("resizeHptPrepare");
  group.Add<ResizeHptCommit>("resizeHptCommit");
  group.Add<GetSmmuInfo>("getSmmuInfo");
  group.Add<ConfigureV3Mmu>("configureV3Mmu");
}

}  // namespace kvm_bridge

#endif
