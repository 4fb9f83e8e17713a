// Host memory: mmap and its kin, ArrayBuffers over it, and copies that cannot fault.
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "call.h"
#include "kvm_abi.h"
#include "place.h"

namespace kvm_bridge {
namespace {

// What KvmCalls takes: the values of asm-generic (uapi MAP, PROT, MADV).
constexpr uint32_t kShared = 0x1;
constexpr uint32_t kPrivate = 0x2;
constexpr uint32_t kAnonymous = 0x20;
constexpr uint32_t kNoReserve = 0x4000;
constexpr uint32_t kHugetlb = 0x40000;
constexpr uint32_t kHugeSizeShift = 26;
constexpr uint32_t kHugeSizeMask = 0x3fU << kHugeSizeShift;
constexpr uint32_t kKnownProt = PROT_READ | PROT_WRITE | PROT_EXEC;

// Bytes of the largest view (VIEW_WINDOW of KvmCalls).
constexpr uint64_t kViewWindow = uint64_t{1} << 30;
constexpr uint64_t kDefaultHugePage = uint64_t{2} << 20;
// No host has more addresses for user space.
constexpr uint64_t kMostAddresses = uint64_t{1} << 62;

// The host's own flags, or -EINVAL: a flag of another meaning (MAP_FIXED!) must not get through.
int64_t HostFlags(uint32_t flags) {
  const uint32_t huge = (flags & kHugetlb) != 0 ? kHugeSizeMask : 0;
  if ((flags & ~(kShared | kPrivate | kAnonymous | kNoReserve | kHugetlb | huge)) != 0) return -EINVAL;
  uint32_t host = flags & (kShared | kPrivate | huge);
  if ((flags & kAnonymous) != 0) host |= MAP_ANONYMOUS;
  if ((flags & kNoReserve) != 0) host |= MAP_NORESERVE;
  if ((flags & kHugetlb) != 0) host |= MAP_HUGETLB;
  return host;
}

struct MmapRequest {
  uint64_t length;
  uint32_t prot;
  uint32_t flags;
  int host_flags;
  // -1: anonymous.
  int fd;
  uint64_t offset;
};

// The unit in which memory of this kind is mapped.
uint64_t UnitOf(const MmapRequest& request) {
  if (request.fd >= 0) {
    struct statfs status;
    const bool is_hugetlb = fstatfs(request.fd, &status) == 0 && status.f_type == HUGETLBFS_MAGIC;
    return is_hugetlb ? static_cast<uint64_t>(status.f_bsize) : PageSize();
  }
  if ((request.flags & kHugetlb) == 0) return PageSize();
  const uint32_t shift = (request.flags & kHugeSizeMask) >> kHugeSizeShift;
  return shift == 0 ? kDefaultHugePage : uint64_t{1} << shift;
}

// kvm_run and the rings of a vCPU: pages that don't exist are found by letting the kernel read a byte of each.
bool IsAllThere(Environment& environment, uint8_t* start, uint64_t length) {
  uint8_t byte;
  for (uint64_t at = 0; at < length; at += PageSize()) {
    if (environment.copier.Read(&byte, start + at, 1) != 1) return false;
  }
  return true;
}

// Whether the kernel always has a page for a memfd when one is touched: not where it counts them one by one
// (vm.overcommit_memory 2).
bool PagesAreSure() {
  static std::atomic<bool> were_sure{false};
  const int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
  // That the process has no descriptor left says nothing of memory.
  if (fd < 0) return (errno == EMFILE || errno == ENFILE) && were_sure;
  char mode = '2';
  const bool is_read = read(fd, &mode, 1) == 1;
  close(fd);
  were_sure = is_read && mode != '2';
  return were_sure;
}

// Whether no access to the mapping can ever fault, so that JavaScript may have it.
bool IsDirect(Environment& environment, const MmapRequest& request, uint8_t* start, uint64_t length, bool is_huge) {
  if ((request.prot & (PROT_READ | PROT_WRITE)) != (PROT_READ | PROT_WRITE)) return false;
  // Without a reservation there may be no huge page when one is touched.
  if (is_huge && (request.flags & kNoReserve) != 0) return false;
  if (request.fd < 0) return true;
  const Descriptor* own = environment.descriptors.Find(request.fd);
  if (own == nullptr) return false;
  if (own->kind == Kind::vcpu) return IsAllThere(environment, start, length);
  // Whoever else has the descriptor may take huge pages out, and then the pool may have none.
  if (own->kind != Kind::memfd || is_huge || !PagesAreSure()) return false;
  struct stat status;
  if (fstat(request.fd, &status) != 0) return false;
  const uint64_t size = static_cast<uint64_t>(status.st_size);
  return request.offset <= size && length <= RoundUp(size, PageSize()) - request.offset;
}

// What mmap is asked for, after the checks that don't depend on the place; 0, or -errno.
int64_t ReadRequest(uint64_t length, uint32_t prot, uint32_t flags, int32_t fd, uint64_t offset, MmapRequest* request) {
  const int64_t host_flags = HostFlags(fd < 0 ? flags | kAnonymous : flags);
  if (host_flags < 0) return host_flags;
  if ((prot & ~kKnownProt) != 0 || fd < -1 || length == 0) return -EINVAL;
  const bool is_shared = (flags & kShared) != 0;
  const bool is_private = (flags & kPrivate) != 0;
  if (is_shared == is_private) return -EINVAL;
  const bool is_anonymous = fd < 0 || (flags & kAnonymous) != 0;
  *request = {length, prot, flags, static_cast<int>(host_flags), is_anonymous ? -1 : fd, offset};
  return 0;
}

int64_t Mmap(Environment& environment, uint64_t length, uint32_t prot, uint32_t flags, int32_t fd, uint64_t offset,
             uint64_t align, uint64_t align_offset) {
  MmapRequest request;
  const int64_t refused = ReadRequest(length, prot, flags, fd, offset, &request);
  if (refused != 0) return refused;
  const uint64_t unit = UnitOf(request);
  if (align == 0) align = PageSize();
  if ((align & (align - 1)) != 0 || align < PageSize()) return -EINVAL;
  if (align_offset % PageSize() != 0) return -EINVAL;
  align_offset &= align - 1;
  if (align < unit) {
    // What is asked for must be a multiple of the unit; then any multiple of the unit will do.
    if (align_offset != 0) return -EINVAL;
    align = unit;
  }
  if (length > kMostAddresses || align > kMostAddresses) return -ENOMEM;

  auto mapping = std::unique_ptr<Mapping>(new (std::nothrow) Mapping);
  if (mapping == nullptr || !mapping->Reserve() || !environment.mappings.Reserve()) return -ENOMEM;
  // Memory of huge pages goes on to the end of the last one.
  const uint64_t accessible = RoundUp(length, unit);
  mapping->reservation = Ref<Reservation>::Make(accessible + align + PageSize());
  if (!mapping->reservation) return -ENOMEM;
  if (mapping->reservation->start() == nullptr) return -errno;
  uint8_t* start = Place(mapping->reservation->start(), align, align_offset);
  const void* mapped = mmap(start, length, static_cast<int>(prot), request.host_flags | MAP_FIXED, request.fd,
                            static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) return -errno;
  // One inaccessible page stays behind it.
  mapping->reservation->Trim(start, start + accessible + PageSize());

  mapping->start = AddressOf(start);
  mapping->end = mapping->start + RoundUp(length, PageSize());
  mapping->is_huge = unit > PageSize();
  mapping->is_shared = (flags & kShared) != 0;
  mapping->is_direct = IsDirect(environment, request, start, mapping->end - mapping->start, mapping->is_huge);
  mapping->is_reservation = prot == PROT_NONE && request.fd < 0 && !mapping->is_huge;
  if (mapping->is_reservation) mapping->holes.Add({mapping->start, mapping->end});
  environment.mappings.Add(mapping.release());
  return static_cast<int64_t>(AddressOf(start));
}

// The mapping of [hva, hva + length), whose length is rounded up to whole pages; nullptr where that is not inside one.
Mapping* FindPages(Environment& environment, uint64_t hva, uint64_t length, uint64_t* pages_length) {
  if (hva % PageSize() != 0 || length == 0 || length > kMostAddresses) return nullptr;
  *pages_length = RoundUp(length, PageSize());
  return environment.mappings.FindRange(hva, *pages_length);
}

// The kernel unmaps what is at the place before it knows whether the new memory can be there, and a driver may well
// refuse. So the memory is made elsewhere and then moved, for which the kernel needs nobody's consent any more.
int64_t MmapFixed(Environment& environment, uint64_t hva, uint64_t length, uint32_t prot, uint32_t flags, int32_t fd,
                  uint64_t offset) {
  MmapRequest request;
  const int64_t refused = ReadRequest(length, prot, flags, fd, offset, &request);
  if (refused != 0) return refused;
  uint64_t size;
  Mapping* mapping = FindPages(environment, hva, length, &size);
  if (mapping == nullptr || !mapping->is_reservation) return -EINVAL;
  const uint64_t unit = UnitOf(request);
  // Memory of huge pages would reach beyond what was asked for.
  if (hva % unit != 0 || size % unit != 0) return -EINVAL;
  if (!mapping->Reserve()) return -ENOMEM;
  const Range range = {hva, hva + size};
  Elsewhere elsewhere(size, unit);
  if (elsewhere.start() == nullptr) return -errno;
  if (mmap(elsewhere.start(), size, static_cast<int>(prot), request.host_flags | MAP_FIXED, request.fd,
           static_cast<off_t>(offset)) == MAP_FAILED) {
    return -errno;
  }
  bool is_empty;
  const int moved = MoveTo(elsewhere.start(), size, hva, &is_empty);
  if (moved != 0) {
    if (is_empty) mapping->Empty(range);
    return moved;
  }
  elsewhere.Forget();
  mapping->Empty(range);
  if (prot == PROT_NONE && request.fd < 0) return 0;
  mapping->holes.Remove(range);
  const bool is_huge = unit > PageSize();
  if (!is_huge && IsDirect(environment, request, PointerTo(hva), size, is_huge)) mapping->plain.Add(range);
  return 0;
}

int64_t Munmap(Environment& environment, uint64_t hva, uint64_t length) {
  uint64_t size;
  Mapping* mapping = FindPages(environment, hva, length, &size);
  if (mapping == nullptr) return -EINVAL;
  if (size < mapping->end - mapping->start) {
    if (!mapping->Reserve()) return -ENOMEM;
    mapping->DetachAll();
    // Nobody is told of memory that went, and who waits for it would wait for ever.
    mapping->served.Unregister({hva, hva + size});
    mapping->is_direct = false;
    // Whoever may still look must not fault; when nobody does any more it becomes inaccessible.
    const int replaced = PutEmptyPages(hva, size, mapping->IsInDoubt() ? PROT_READ | PROT_WRITE : PROT_NONE);
    if (replaced != 0) return replaced;
    mapping->Empty({hva, hva + size});
    environment.mappings.ServedChanged();
    if (mapping->is_reservation || !mapping->holes.Contains({mapping->start, mapping->end})) return 0;
  }
  environment.mappings.Remove(*mapping);
  return 0;
}

int64_t Mprotect(Environment& environment, uint64_t hva, uint64_t length, uint32_t prot) {
  uint64_t size;
  Mapping* mapping = FindPages(environment, hva, length, &size);
  if (mapping == nullptr || (prot & ~kKnownProt) != 0) return -EINVAL;
  if (mapping->holes.Intersects({hva, hva + size})) return -ENOMEM;
  if (mapping->IsInDoubt()) return -EBUSY;
  if (!mapping->Reserve()) return -ENOMEM;
  mapping->DetachAll();
  mapping->is_direct = false;
  mapping->is_protected = true;
  mapping->plain.Remove({hva, hva + size});
  if (mprotect(PointerTo(hva), size, static_cast<int>(prot)) != 0) return -errno;
  mapping->served.Protected({hva, hva + size}, static_cast<int>(prot));
  return 0;
}

// Linux 5.14; older headers have no names for them.
constexpr uint32_t kMadvPopulateRead = 22;
constexpr uint32_t kMadvPopulateWrite = 23;

int64_t Madvise(Environment& environment, uint64_t hva, uint64_t length, uint32_t advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_REMOVE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case kMadvPopulateRead:
    case kMadvPopulateWrite:
      break;
    default:
      return -EINVAL;
  }
  uint64_t size;
  Mapping* mapping = FindPages(environment, hva, length, &size);
  if (mapping == nullptr) return -EINVAL;
  if (mapping->holes.Intersects({hva, hva + size})) return -ENOMEM;
  // Who populates waits for each page that isn't there, and this thread is the one that brings it.
  const bool populates = advice == kMadvPopulateRead || advice == kMadvPopulateWrite;
  if (populates && mapping->served.Intersects({hva, hva + size})) return -EDEADLK;
  if (mapping->is_huge && (advice == MADV_DONTNEED || advice == MADV_REMOVE)) {
    // The pool may have no page when the memory is touched again.
    if (mapping->IsInDoubt()) return -EBUSY;
    mapping->DetachAll();
    mapping->is_direct = false;
  }
  return madvise(PointerTo(hva), size, static_cast<int>(advice)) == 0 ? 0 : -errno;
}

int64_t Fallocate(Environment&, OwnFd fd, uint32_t mode, uint64_t offset, uint64_t length) {
  // Their mappings have views, which would find pages gone.
  if (fd.descriptor->kind == Kind::memfd) return -EOPNOTSUPP;
  int result;
  do {
    result = fallocate(fd.number, static_cast<int>(mode), static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : -errno;
}

int64_t MemfdCreate(Environment& environment, Name name, uint64_t size, uint32_t flags) {
  if (size > INT64_MAX) return -EINVAL;
  const int fd = memfd_create(name.text, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  if (ftruncate(fd, static_cast<off_t>(size)) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    const int error = errno;
    close(fd);
    return -error;
  }
  return environment.descriptors.Adopt(fd, Kind::memfd);
}

napi_value ViewFor(Environment& environment, uint64_t hva, uint64_t length, Audience audience) {
  const napi_env env = environment.env();
  Mapping* mapping = environment.mappings.Find(hva);
  if (mapping == nullptr || (hva - mapping->start) % kViewWindow != 0 ||
      length != std::min(kViewWindow, mapping->end - hva)) {
    return ToValue(env, int64_t{-EINVAL});
  }
  if (!mapping->MayBeTouched()) return ToValue(env, int64_t{-EACCES});
  const napi_value found = mapping->Find(hva, audience);
  if (found != nullptr) return found;
  const napi_value made = View::Make(env, *mapping, hva, length, audience, mapping->reservation);
  // Some runtimes have no ArrayBuffers over memory of others: there are the copies.
  return made != nullptr ? made : ToValue(env, int64_t{-EACCES});
}

napi_value ViewOf(Environment& environment, uint64_t hva, uint64_t length) {
  return ViewFor(environment, hva, length, Audience::everybody);
}

napi_value WindowOf(Environment& environment, uint64_t hva, uint64_t length) {
  return ViewFor(environment, hva, length, Audience::caller);
}

napi_value Vmap(Environment& environment, uint64_t hva, uint64_t length) {
  const napi_env env = environment.env();
  Mapping* mapping = length == 0 || length > kViewWindow ? nullptr : environment.mappings.FindRange(hva, length);
  if (mapping == nullptr) return ToValue(env, int64_t{-EINVAL});
  if (!mapping->MayBeTouched()) return ToValue(env, int64_t{-EACCES});
  const napi_value buffer = View::Make(env, *mapping, hva, length, Audience::one, mapping->reservation);
  napi_value bytes;
  if (buffer == nullptr) return ToValue(env, int64_t{-EACCES});
  if (napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &bytes) == napi_ok) return bytes;
  mapping->Detach(env, hva, buffer);
  return ToValue(env, int64_t{-ENOMEM});
}

int64_t Vunmap(Environment& environment, Shown shown) {
  // What was detached has no address any more, and what the mapping took along neither.
  if (shown.start == nullptr) return 0;
  Mapping* mapping = environment.mappings.Find(AddressOf(shown.start));
  const bool is_ours = mapping != nullptr && mapping->Detach(environment.env(), AddressOf(shown.start), shown.buffer);
  return is_ours ? 0 : -EINVAL;
}

// What of a copy can be made without waiting: the mapping and the bytes, or -errno.
struct Accessible {
  const Mapping* mapping;
  int64_t length;
};

Accessible Access(Environment& environment, uint64_t hva, size_t length, bool is_write) {
  const Mapping* mapping = environment.mappings.Find(hva);
  if (mapping == nullptr) return {nullptr, -EFAULT};
  const size_t readable = mapping->Readable(hva, length);
  if (readable == 0) return {mapping, -EFAULT};
  if (mapping->served.is_empty()) return {mapping, static_cast<int64_t>(readable)};
  const size_t reachable = mapping->served.Reachable(environment.copier, hva, readable, is_write);
  return {mapping, reachable == 0 ? int64_t{-EAGAIN} : static_cast<int64_t>(reachable)};
}

// Bytes copied from one mapping, fewer than `length` where readable memory ends; -EFAULT when none. -EAGAIN for memory
// that this thread would have to wait for.
int64_t CopyOut(Environment& environment, uint8_t* to, uint64_t hva, size_t length) {
  const auto [mapping, readable] = Access(environment, hva, length, false);
  if (readable < 0) return readable;
  const auto count = static_cast<size_t>(readable);
  if (!mapping->IsPlain(hva, count)) return environment.copier.Read(to, PointerTo(mapping->served.Reach(hva)), count);
  memmove(to, PointerTo(hva), count);
  return readable;
}

int64_t CopyIn(Environment& environment, uint64_t hva, const uint8_t* from, size_t length) {
  const auto [mapping, writable] = Access(environment, hva, length, true);
  if (writable < 0) return writable;
  const auto count = static_cast<size_t>(writable);
  if (!mapping->IsPlain(hva, count)) return environment.copier.Write(PointerTo(mapping->served.Reach(hva)), from, count);
  memmove(PointerTo(hva), from, count);
  return writable;
}

int64_t ReadMemory(Environment& environment, uint64_t hva, Array<uint8_t> into) {
  return into.length == 0 ? 0 : CopyOut(environment, into.data, hva, into.length);
}

int64_t WriteMemory(Environment& environment, uint64_t hva, Array<uint8_t> from) {
  return from.length == 0 ? 0 : CopyIn(environment, hva, from.data, from.length);
}

// Moves each piece that is wholly inside a mapping and has room, until one fails: with `move(hva, at, length)` where no access
// can fault, and else with `move_guarded`, which may fail.
template <typename Move, typename MoveGuarded>
int64_t ForEachPiece(Environment& environment, Array<double> hvas, Array<uint32_t> lengths, size_t room, Move move,
                     MoveGuarded move_guarded) {
  const size_t count = std::min(hvas.length, lengths.length);
  size_t at = 0;
  // The mapping of the piece before, mostly the same. Its fields would be loaded again after each byte that is moved.
  uint64_t start = 0;
  uint64_t size = 0;
  bool may_be_touched = false;
  for (size_t i = 0; i < count; i++) {
    const double address = ReadOnce(&hvas.data[i]);
    const size_t length = ReadOnce(&lengths.data[i]);
    if (length == 0) continue;
    if (!(address >= 0 && address < static_cast<double>(kMostAddresses)) || length > room - at) {
      return static_cast<int64_t>(i);
    }
    // With a sign, which processors convert at once.
    const auto integer = static_cast<int64_t>(address);
    const auto hva = static_cast<uint64_t>(integer);
    if (hva - start >= size || length > size - (hva - start)) {
      const Mapping* const mapping = environment.mappings.FindRange(hva, length);
      if (mapping == nullptr) return static_cast<int64_t>(i);
      start = mapping->start;
      size = mapping->end - start;
      may_be_touched = mapping->MayBeTouched();
    }
    if (static_cast<double>(integer) != address) return static_cast<int64_t>(i);
    if (may_be_touched) {
      move(hva, at, length);
    } else if (!move_guarded(hva, at, length)) {
      return static_cast<int64_t>(i);
    }
    at += length;
  }
  return static_cast<int64_t>(count);
}

// The sizes of loads and stores without a call to memcpy.
inline void CopySmall(uint8_t* to, const uint8_t* from, size_t length) {
  switch (length) {
    case 1:
      *to = *from;
      break;
    case 2:
      memcpy(to, from, 2);
      break;
    case 4:
      memcpy(to, from, 4);
      break;
    case 8:
      memcpy(to, from, 8);
      break;
    default:
      memmove(to, from, length);
  }
}

int64_t Gather(Environment& environment, Array<double> hvas, Array<uint32_t> lengths, Array<uint8_t> into) {
  return ForEachPiece(
      environment, hvas, lengths, into.length,
      [&](uint64_t hva, size_t at, size_t length) { CopySmall(into.data + at, PointerTo(hva), length); },
      [&](uint64_t hva, size_t at, size_t length) {
        return CopyOut(environment, into.data + at, hva, length) == static_cast<int64_t>(length);
      });
}

int64_t Scatter(Environment& environment, Array<double> hvas, Array<uint32_t> lengths, Array<uint8_t> from) {
  return ForEachPiece(
      environment, hvas, lengths, from.length,
      [&](uint64_t hva, size_t at, size_t length) { CopySmall(PointerTo(hva), from.data + at, length); },
      [&](uint64_t hva, size_t at, size_t length) {
        return CopyIn(environment, hva, from.data + at, length) == static_cast<int64_t>(length);
      });
}

}  // namespace

void ExportMapping(Exports exports) {
  // Once before there may be no descriptor left to ask with.
  PagesAreSure();
  exports.Add<Mmap>("mmap");
  exports.Add<MmapFixed>("mmapFixed");
  exports.Add<Munmap>("munmap");
  exports.Add<Mprotect>("mprotect");
  exports.Add<Madvise>("madvise");
  exports.Add<Fallocate>("fallocate");
  exports.Add<MemfdCreate>("memfdCreate");
  exports.Add<ViewOf>("view");
  exports.Add<WindowOf>("window");
  exports.Add<Vmap>("vmap");
  exports.Add<Vunmap>("vunmap");
  exports.Add<ReadMemory>("readMemory");
  exports.Add<WriteMemory>("writeMemory");
  exports.Add<Gather>("gather");
  exports.Add<Scatter>("scatter");
}

}  // namespace kvm_bridge
