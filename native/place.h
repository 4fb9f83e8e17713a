// Memory that is made at one place and then moved to another in one step.
#ifndef KVM_BRIDGE_PLACE_H_
#define KVM_BRIDGE_PLACE_H_

#include <stdint.h>

#include <algorithm>

#include "guarded_memory.h"

namespace kvm_bridge {

// What one page table maps on s390x.
constexpr uint64_t kSegment = uint64_t{1} << 20;

inline uint8_t* PointerTo(uint64_t address) { return reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(address)); }

// The first address from `from` on that is a multiple of `align` plus `align_offset`.
inline uint8_t* Place(uint8_t* from, uint64_t align, uint64_t align_offset) {
  const uint64_t address = reinterpret_cast<uintptr_t>(from);
  return PointerTo(RoundUp(address - align_offset, align) + align_offset);
}

// Inaccessible addresses for memory on its way. Where a page table is there for the old place, were it for a neighbour,
// mremap makes one for the new place: on s390x those have KVM's storage keys, so these have segments of their own.
class Elsewhere {
 public:
  explicit Elsewhere(uint64_t size, uint64_t unit = kSegment)
      : align_(std::max(unit, kSegment)), addresses_(RoundUp(size, align_) + align_) {
    if (addresses_.start() == nullptr) return;
    uint8_t* const start = Place(addresses_.start(), align_, 0);
    addresses_.Trim(start, start + size);
  }

  // nullptr and errno when there are none.
  uint8_t* start() const { return addresses_.start(); }
  // The memory has gone where it was to go.
  void Forget() { addresses_.Forget(); }

 private:
  const uint64_t align_;
  Reservation addresses_;
};

}  // namespace kvm_bridge

#endif
