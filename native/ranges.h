// Sets of addresses.
#ifndef KVM_BRIDGE_RANGES_H_
#define KVM_BRIDGE_RANGES_H_

#include <stdint.h>

#include "nodes.h"

namespace kvm_bridge {

struct Range {
  uint64_t start;
  uint64_t end;
};

// Ranges of addresses that neither overlap nor touch. `Add` and `Remove` need a `Reserve` before them.
class RangeSet {
 public:
  bool Reserve() { return ranges_.Reserve(); }
  void Add(Range range);
  void Remove(Range range);
  void Clear() { ranges_->clear(); }
  bool is_empty() const { return ranges_->empty(); }
  bool Intersects(Range range) const;
  bool Contains(Range range) const;
  // The first address from `address` on that is in a range, or `otherwise` when there is none before that.
  uint64_t FirstFrom(uint64_t address, uint64_t otherwise) const;
  // Where the range ends that the address is in.
  uint64_t EndOf(uint64_t address) const { return Behind(address)->second; }

  template <typename Each>
  void ForEach(Each each) const {
    for (const auto& [start, end] : *ranges_) each(Range{start, end});
  }

 private:
  using Map = ReservedMap<uint64_t, uint64_t>;
  // The first range that ends behind the address.
  Map::Map::const_iterator Behind(uint64_t address) const;

  // The end of each range by its start.
  Map ranges_;
};

}  // namespace kvm_bridge

#endif
