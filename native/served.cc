#include "served.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "kvm_abi.h"
#include "place.h"
#include "userfaultfd_abi.h"

namespace kvm_bridge {
namespace {

// As many pages as are looked at together.
constexpr size_t kPages = 64;
// A bit of /proc/self/pagemap.
constexpr uint64_t kWriteProtected = uint64_t{1} << 57;

// How many of the first pages are there; none where nobody can tell.
size_t Present(uint64_t start, size_t pages) {
  unsigned char present[kPages];
  if (mincore(PointerTo(start), pages * PageSize(), present) != 0) return 0;
  return static_cast<size_t>(
      std::find_if(present, present + pages, [](unsigned char page) { return (page & 1) == 0; }) - present);
}

// How many of the first pages a store doesn't wait for.
size_t Writable(int pagemap, uint64_t start, size_t pages) {
  uint64_t entries[kPages];
  const size_t size = pages * sizeof entries[0];
  const auto offset = static_cast<off_t>(start / PageSize() * sizeof entries[0]);
  if (pagemap < 0 || pread(pagemap, entries, size, offset) != static_cast<ssize_t>(size)) return 0;
  return static_cast<size_t>(
      std::find_if(entries, entries + pages, [](uint64_t entry) { return (entry & kWriteProtected) != 0; }) - entries);
}

// Where in [at, end) the first byte is that `look` does not let through, or `end`; only what is in the set is looked at.
template <typename Look>
uint64_t FirstStopped(const RangeSet& in, uint64_t at, uint64_t end, Look look) {
  for (at = in.FirstFrom(at, end); at < end; at = in.FirstFrom(at, end)) {
    const uint64_t page = at & ~uint64_t{PageSize() - 1};
    const uint64_t behind = std::min(RoundUp(end, PageSize()), in.EndOf(at));
    const size_t pages = std::min<size_t>(kPages, (behind - page) / PageSize());
    const size_t passed = look(page, pages);
    if (passed < pages) return std::max(at, page + passed * PageSize());
    at = page + pages * PageSize();
  }
  return end;
}

}  // namespace

Served::~Served() { DropAlias(); }

int Served::MakeAlias(uint64_t start, uint64_t size) {
  if (alias_ != nullptr) return 0;
  // Of memory that is shared, mremap makes another mapping when it is told that the old one has no bytes.
  void* const made = mremap(PointerTo(start), 0, size, MREMAP_MAYMOVE);
  if (made == MAP_FAILED) return -errno;
  alias_ = static_cast<uint8_t*>(made);
  start_ = start;
  size_ = size;
  return 0;
}

void Served::DropAlias() {
  if (alias_ != nullptr) munmap(alias_, size_);
  alias_ = nullptr;
}

void Served::Add(int by, Range range, uint64_t modes) {
  by_ = by;
  if ((modes & ~kModeWp) != 0) missing_.Add(range);
  if ((modes & kModeWp) != 0) stores_.Add(range);
}

void Served::Remove(Range range) {
  missing_.Remove(range);
  stores_.Remove(range);
  if (!is_empty()) return;
  by_ = -1;
  DropAlias();
}

void Served::Unregister(Range range) {
  const auto unregister = [&](Range part) {
    const uint64_t start = std::max(part.start, range.start);
    const uint64_t end = std::min(part.end, range.end);
    UffdioRange whole = {start, end - start};
    if (start < end) Ioctl(by_, kUffdioUnregister, &whole);
  };
  missing_.ForEach(unregister);
  stores_.ForEach(unregister);
}

void Served::End() {
  Unregister({0, UINT64_MAX});
  missing_.Clear();
  stores_.Clear();
  by_ = -1;
  DropAlias();
}

void Served::Protected(Range range, int prot) {
  if (alias_ != nullptr) mprotect(PointerTo(Reach(range.start)), range.end - range.start, prot);
}

size_t Served::Reachable(GuardedCopier& copier, uint64_t address, size_t length, bool is_write) const {
  uint64_t end = FirstStopped(missing_, address, address + length, Present);
  if (is_write) {
    end = FirstStopped(stores_, address, end, [&](uint64_t start, size_t pages) {
      return Writable(copier.Pagemap(), start, pages);
    });
  }
  return static_cast<size_t>(end - address);
}

}  // namespace kvm_bridge
