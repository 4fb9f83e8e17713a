#include "ranges.h"

#include <algorithm>
#include <iterator>

namespace kvm_bridge {

RangeSet::Map::Map::const_iterator RangeSet::Behind(uint64_t address) const {
  const auto next = ranges_->upper_bound(address);
  if (next == ranges_->begin()) return next;
  const auto before = std::prev(next);
  return before->second > address ? before : next;
}

void RangeSet::Add(Range range) {
  // One that ends where this one begins belongs to it too.
  auto other = range.start == 0 ? ranges_->cbegin() : Behind(range.start - 1);
  while (other != ranges_->end() && other->first <= range.end) {
    range = {std::min(range.start, other->first), std::max(range.end, other->second)};
    other = ranges_->erase(other);
  }
  ranges_->emplace(range.start, range.end);
}

void RangeSet::Remove(Range range) {
  auto other = Behind(range.start);
  while (other != ranges_->end() && other->first < range.end) {
    const Range found = {other->first, other->second};
    other = ranges_->erase(other);
    if (found.start < range.start) ranges_->emplace(found.start, range.start);
    if (found.end > range.end) ranges_->emplace(range.end, found.end);
  }
}

bool RangeSet::Intersects(Range range) const {
  const auto found = Behind(range.start);
  return found != ranges_->end() && found->first < range.end;
}

bool RangeSet::Contains(Range range) const {
  const auto found = Behind(range.start);
  return found != ranges_->end() && found->first <= range.start && found->second >= range.end;
}

uint64_t RangeSet::FirstFrom(uint64_t address, uint64_t otherwise) const {
  const auto found = Behind(address);
  return found == ranges_->end() ? otherwise : std::min(std::max(found->first, address), otherwise);
}

}  // namespace kvm_bridge
