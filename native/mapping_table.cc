#include "mapping_table.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <iterator>

#include "place.h"

namespace kvm_bridge {
namespace {

constexpr int kNothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

// Parts that were unmapped while somebody might still look are closed when nobody does any more.
void CloseHoles(ViewList& views) {
  static_cast<Mapping&>(views).holes.ForEach(
      [](Range hole) { mprotect(PointerTo(hole.start), hole.end - hole.start, PROT_NONE); });
}

}  // namespace

Mapping::Mapping() : ViewList(CloseHoles) {}

size_t Mapping::Readable(uint64_t address, size_t length) const {
  return static_cast<size_t>(std::min<uint64_t>(length, holes.FirstFrom(address, end) - address));
}

int Mapping::PrepareToServe(int by) {
  if (is_reservation || (is_shared && is_protected)) return -EINVAL;
  if (IsInDoubt() || (served.by() >= 0 && served.by() != by)) return -EBUSY;
  if (!Reserve()) return -ENOMEM;
  if (is_shared) {
    const int made = served.MakeAlias(start, end - start);
    if (made != 0) return made;
  }
  DetachAll();
  return 0;
}

Mapping* MappingTable::Find(uint64_t address) {
  if (last_found_ != nullptr && address - last_found_->start < last_found_->end - last_found_->start) {
    return last_found_;
  }
  const auto above = by_start_->upper_bound(address);
  if (above == by_start_->begin()) return nullptr;
  Mapping* below = std::prev(above)->second;
  if (address >= below->end) return nullptr;
  last_found_ = below;
  return below;
}

Mapping* MappingTable::FindRange(uint64_t start, uint64_t length) {
  Mapping* mapping = Find(start);
  return mapping != nullptr && length <= mapping->end - start ? mapping : nullptr;
}

bool MappingTable::EndsAtGuard(const uint8_t* data, size_t length) {
  const uint64_t start = reinterpret_cast<uintptr_t>(data);
  const Mapping* mapping = FindRange(start, length);
  return mapping != nullptr && mapping->MayBeTouched() && !mapping->is_huge && start + length == mapping->end;
}

void MappingTable::Add(Mapping* mapping) { by_start_->emplace(mapping->start, mapping); }

void MappingTable::Remove(Mapping& mapping) {
  mapping.DetachAll();
  mapping.served.End();
  // Where no memory is to be had for empty pages, what is there stays until nobody needs the addresses any more.
  if (mapping.reservation->is_shared()) {
    const uint64_t size = mapping.reservation->length() - PageSize();
    PutEmptyPages(mapping.start, size, mapping.is_empty() ? PROT_NONE : PROT_READ | PROT_WRITE);
  }
  mapping.Disown();
  last_found_ = nullptr;
  by_start_->erase(mapping.start);
  delete &mapping;
  if (is_serving_) ServedChanged();
}

void MappingTable::RemoveAll() {
  while (!by_start_->empty()) Remove(*by_start_->begin()->second);
}

void MappingTable::ServedChanged() {
  is_serving_ = std::any_of(by_start_->begin(), by_start_->end(),
                            [](const auto& entry) { return !entry.second->served.is_empty(); });
}

void MappingTable::EndServing(int by) {
  for (const auto& [start, mapping] : *by_start_) {
    if (mapping->served.by() == by) mapping->served.End();
  }
  ServedChanged();
}

void MappingTable::EndServingAll() {
  for (const auto& [start, mapping] : *by_start_) mapping->served.End();
  is_serving_ = false;
}

int MoveTo(uint8_t* made, uint64_t size, uint64_t place, bool* is_empty) {
  *is_empty = false;
  if (mremap(made, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, PointerTo(place)) != MAP_FAILED) return 0;
  const int error = errno;
  // Should the place be empty now, nobody else may get it.
  *is_empty = mmap(PointerTo(place), size, PROT_NONE, kNothing | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED;
  return -error;
}

int PutEmptyPages(uint64_t start, uint64_t size, int prot) {
  // Made elsewhere first: where mmap itself finds too late that there is no memory, it has unmapped the place already.
  Elsewhere elsewhere(size);
  if (elsewhere.start() == nullptr) return -errno;
  if (mprotect(elsewhere.start(), size, prot) != 0) return -errno;
  bool is_empty;
  const int moved = MoveTo(elsewhere.start(), size, start, &is_empty);
  if (moved == 0) elsewhere.Forget();
  return moved;
}

}  // namespace kvm_bridge
