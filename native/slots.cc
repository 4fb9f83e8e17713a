#include "slots.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>

#include "kvm_abi.h"
#include "mapping_table.h"
#include "place.h"

namespace kvm_bridge {
namespace {

// No host has more addresses for user space.
constexpr uint64_t kMostAddresses = uint64_t{1} << 57;

void SetField(void* region, size_t offset, uint64_t value) {
  memcpy(static_cast<uint8_t*>(region) + offset, &value, sizeof value);
}

}  // namespace

int64_t VmSlots::SetRegion(MappingTable& mappings, int vm, unsigned long request, uint32_t slot, uint64_t size,
                           uint64_t hva, void* region) {
  if (WouldWait(mappings)) return -EDEADLK;
  if (!by_slot_.Reserve()) return -ENOMEM;
  Ref<Reservation> below;
  // A size of 0 deletes, and what is no whole pages or no address the kernel refuses by itself.
  if (size != 0 && hva % PageSize() == 0 && hva < kMostAddresses && size < kMostAddresses) {
    const auto known = by_slot_->find(slot);
    const Mapping* mapping = mappings.FindRange(hva, size);
    if (mapping != nullptr) {
      below = mapping->reservation;
    } else if (known != by_slot_->end() && known->second->Contains(hva, size)) {
      below = known->second;
    } else {
      // Where there is nothing, nothing will be.
      below = Ref<Reservation>::Make(PointerTo(hva), static_cast<size_t>(size));
      if (!below) return -ENOMEM;
      if (below->start() == nullptr && errno == EEXIST) return RefuseForeign(vm, request, size, hva, region);
    }
  }
  const int64_t result = Ioctl(vm, request, region);
  if (result != 0) return result;
  by_slot_->erase(slot);
  if (below) by_slot_->emplace(slot, std::move(below));
  return 0;
}

bool VmSlots::WouldWait(MappingTable& mappings) {
  if (runs_ == 0 || !mappings.IsServing()) return false;
  for (const auto& slot : *by_slot_) {
    const Mapping* mapping = mappings.Find(AddressOf(slot.second->start()));
    if (mapping != nullptr && !mapping->served.is_empty()) return true;
  }
  return false;
}

// The kernel is asked all the same, with other addresses: what else is wrong is for it to say.
int64_t VmSlots::RefuseForeign(int vm, unsigned long request, uint64_t size, uint64_t hva, void* region) {
  Elsewhere elsewhere(RoundUp(size + hva % kSegment, kSegment));
  if (elsewhere.start() == nullptr) return -EPERM;
  SetField(region, offsetof(kvm_userspace_memory_region, userspace_addr), AddressOf(elsewhere.start()) + hva % kSegment);
  const int64_t result = Ioctl(vm, request, region);
  if (result == 0) {
    SetField(region, offsetof(kvm_userspace_memory_region, memory_size), 0);
    Ioctl(vm, request, region);
  }
  // It may be the caller's.
  SetField(region, offsetof(kvm_userspace_memory_region, userspace_addr), hva);
  SetField(region, offsetof(kvm_userspace_memory_region, memory_size), size);
  return result == 0 ? int64_t{-EPERM} : result;
}

}  // namespace kvm_bridge
