#include "mapping_table.h"

#include <sys/mman.h>

#include <algorithm>

namespace kvm_bridge {
namespace {

bool IsDetached(napi_env env, napi_value buffer) {
  bool is_detached = false;
  return napi_is_detached_arraybuffer(env, buffer, &is_detached) != napi_ok || is_detached;
}

// The ArrayBuffer of a view, or nullptr when it was dropped or transferred.
napi_value Living(napi_env env, const View& view) {
  napi_value buffer = nullptr;
  napi_get_reference_value(env, view.buffer, &buffer);
  return buffer == nullptr || IsDetached(env, buffer) ? nullptr : buffer;
}

// From now on the view is only V8's.
void Disown(napi_env env, View& view) {
  napi_delete_reference(env, view.buffer);
  view.mapping = nullptr;
}

}  // namespace

std::vector<Range>::const_iterator RangeSet::Behind(uint64_t address) const {
  return std::upper_bound(ranges_.begin(), ranges_.end(), address,
                          [](uint64_t wanted, const Range& range) { return wanted < range.end; });
}

void RangeSet::Add(Range range) {
  std::vector<Range> merged;
  for (const Range& other : ranges_) {
    if (other.end < range.start || other.start > range.end) {
      merged.push_back(other);
    } else {
      range = {std::min(range.start, other.start), std::max(range.end, other.end)};
    }
  }
  const auto place = std::upper_bound(merged.begin(), merged.end(), range.start,
                                      [](uint64_t start, const Range& other) { return start < other.start; });
  merged.insert(place, range);
  ranges_ = std::move(merged);
}

void RangeSet::Remove(Range range) {
  std::vector<Range> left;
  for (const Range& other : ranges_) {
    if (other.start < range.start) left.push_back({other.start, std::min(other.end, range.start)});
    if (other.end > range.end) left.push_back({std::max(other.start, range.end), other.end});
  }
  ranges_ = std::move(left);
}

bool RangeSet::Intersects(Range range) const {
  const auto found = Behind(range.start);
  return found != ranges_.end() && found->start < range.end;
}

bool RangeSet::Contains(Range range) const {
  const auto found = Behind(range.start);
  return found != ranges_.end() && found->start <= range.start && found->end >= range.end;
}

uint64_t RangeSet::FirstFrom(uint64_t address, uint64_t otherwise) const {
  const auto found = Behind(address);
  return found == ranges_.end() ? otherwise : std::min(std::max(found->start, address), otherwise);
}

size_t Mapping::Readable(uint64_t address, size_t length) const {
  return static_cast<size_t>(std::min<uint64_t>(length, holes.FirstFrom(address, end) - address));
}

size_t MappingTable::IndexAbove(uint64_t address) const {
  const auto above = std::upper_bound(mappings_.begin(), mappings_.end(), address,
                                      [](uint64_t wanted, const auto& mapping) { return wanted < mapping->start; });
  return static_cast<size_t>(above - mappings_.begin());
}

Mapping* MappingTable::Find(uint64_t address) {
  if (last_found_ != nullptr && address - last_found_->start < last_found_->end - last_found_->start) {
    return last_found_;
  }
  const size_t above = IndexAbove(address);
  if (above == 0) return nullptr;
  Mapping* below = mappings_[above - 1].get();
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
  return mapping != nullptr && mapping->is_direct && !mapping->is_huge && start + length == mapping->end;
}

void MappingTable::Add(std::unique_ptr<Mapping> mapping) {
  const auto place = mappings_.begin() + static_cast<ptrdiff_t>(IndexAbove(mapping->start));
  mappings_.insert(place, std::move(mapping));
}

napi_value MappingTable::GetView(napi_env env, Mapping& mapping, uint64_t start, size_t length) {
  for (const View* view : mapping.views) {
    if (view->start != start) continue;
    const napi_value buffer = Living(env, *view);
    if (buffer != nullptr) return buffer;
  }
  auto* view = new View{start, &mapping, nullptr, mapping.reservation};
  void* data = reinterpret_cast<void*>(static_cast<uintptr_t>(start));
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, data, length, FinalizeView, view, &buffer) != napi_ok) {
    delete view;
    return nullptr;
  }
  if (napi_create_reference(env, buffer, 0, &view->buffer) != napi_ok) {
    napi_detach_arraybuffer(env, buffer);
    view->mapping = nullptr;
    return nullptr;
  }
  mapping.views.push_back(view);
  return buffer;
}

void MappingTable::FinalizeView(napi_env env, void*, void* data) {
  auto* view = static_cast<View*>(data);
  if (view->mapping != nullptr) {
    auto& views = view->mapping->views;
    views.erase(std::remove(views.begin(), views.end(), view), views.end());
    napi_delete_reference(env, view->buffer);
  }
  delete view;
}

Detached MappingTable::DetachViews(napi_env env, Mapping& mapping) {
  auto worst = Detached::all;
  std::vector<View*> left;
  for (View* view : mapping.views) {
    napi_value buffer = nullptr;
    napi_get_reference_value(env, view->buffer, &buffer);
    const bool is_transferred = buffer != nullptr && IsDetached(env, buffer);
    if (buffer != nullptr && !is_transferred && napi_detach_arraybuffer(env, buffer) == napi_ok) {
      view->reservation.reset();
      Disown(env, *view);
    } else {
      worst = std::max(worst, buffer == nullptr ? Detached::some_in_doubt : Detached::some_transferred);
      left.push_back(view);
    }
  }
  mapping.views = std::move(left);
  return worst;
}

void MappingTable::Remove(napi_env env, Mapping& mapping) {
  if (DetachViews(env, mapping) != Detached::all) {
    // The addresses stay until V8 has let go of them; whoever still looks there sees zeroes of its own.
    mmap(reinterpret_cast<void*>(static_cast<uintptr_t>(mapping.start)), mapping.end - mapping.start,
         PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    for (View* view : mapping.views) Disown(env, *view);
  }
  last_found_ = nullptr;
  mappings_.erase(mappings_.begin() + static_cast<ptrdiff_t>(IndexAbove(mapping.start)) - 1);
}

void MappingTable::RemoveAll(napi_env env) {
  while (!mappings_.empty()) Remove(env, *mappings_.back());
}

}  // namespace kvm_bridge
