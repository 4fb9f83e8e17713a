// userfaultfd(2): who brings pages when they are touched, and who hears of stores; and PAGEMAP_SCAN, which tells of them.
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "call.h"
#include "kvm_abi.h"
#include "place.h"
#include "userfaultfd_abi.h"

namespace kvm_bridge {
namespace {

// The device needs no privilege but the right to open it; the system call serves those who have CAP_SYS_PTRACE, or all
// where vm.unprivileged_userfaultfd is 1.
int64_t OpenUserfaultfd(uint32_t flags) {
  const int all = static_cast<int>(flags) | O_CLOEXEC | O_NONBLOCK;
  int device;
  do {
    device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  } while (device < 0 && errno == EINTR);
  if (device < 0) {
    const long fd = syscall(SYS_userfaultfd, all);
    return fd < 0 ? -errno : fd;
  }
  const int64_t fd = Ioctl(device, kUserfaultfdNew, static_cast<uint64_t>(all));
  close(device);
  return fd;
}

int64_t Userfaultfd(Environment& environment, uint32_t flags) {
  if ((flags & ~kUserModeOnly) != 0) return -EINVAL;
  return environment.descriptors.Adopt(OpenUserfaultfd(flags), Kind::userfaultfd);
}

int64_t Api(Environment&, OwnFd uffd, Array<uint64_t> api) {
  if (api.length < 2) return -EFAULT;
  UffdioApi request = {kUffdApi, api.data[0], 0};
  const int64_t result = Ioctl(uffd.number, kUffdioApi, &request);
  if (result != 0) return result;
  // Stores that the kernel itself resolves make nobody wait.
  uffd.descriptor->resolves_stores = (api.data[0] & kFeatureWpAsync) != 0;
  api.data[0] = request.features;
  api.data[1] = request.ioctls;
  return 0;
}

int64_t Register(Environment& environment, OwnFd uffd, uint64_t hva, uint64_t length, uint64_t mode) {
  // One that came from another process speaks of that one's addresses.
  Mapping* mapping = length == 0 ? nullptr : environment.mappings.FindRange(hva, length);
  if (uffd.descriptor->kind != Kind::userfaultfd || mapping == nullptr || mapping->is_reservation) return -EINVAL;
  const uint64_t waits = mode & ~(uffd.descriptor->resolves_stores ? kModeWp : 0);
  if ((waits & kModeWp) != 0) {
    // By it this thread knows what it would wait for.
    const int pagemap = environment.copier.Pagemap();
    if (pagemap < 0) return pagemap;
  }
  if (waits != 0) {
    const int refused = mapping->PrepareToServe(uffd.number);
    if (refused != 0) return refused;
  }
  UffdioRegister request = {{hva, length}, mode, 0};
  const int64_t result = Ioctl(uffd.number, kUffdioRegister, &request);
  if (result == 0 && waits != 0) mapping->served.Add(uffd.number, {hva, hva + length}, waits);
  if (result != 0 && mapping->served.is_empty()) mapping->served.End();
  environment.mappings.ServedChanged();
  return result;
}

int64_t Unregister(Environment& environment, OwnFd uffd, uint64_t hva, uint64_t length) {
  Mapping* mapping = length == 0 ? nullptr : environment.mappings.FindRange(hva, length);
  if (uffd.descriptor->kind != Kind::userfaultfd || mapping == nullptr) return -EINVAL;
  if (!mapping->Reserve()) return -ENOMEM;
  UffdioRange range = {hva, length};
  const int64_t result = Ioctl(uffd.number, kUffdioUnregister, &range);
  if (result == 0 && mapping->served.by() == uffd.number) mapping->served.Remove({hva, hva + length});
  environment.mappings.ServedChanged();
  return result;
}

int64_t Copy(Environment&, OwnFd uffd, uint64_t hva, Array<uint8_t> from, uint64_t mode) {
  UffdioCopy request = {hva, reinterpret_cast<uintptr_t>(from.data), from.length, mode, 0};
  const int64_t result = Ioctl(uffd.number, kUffdioCopy, &request);
  return result < 0 && request.done <= 0 ? result : request.done;
}

int64_t Zeropage(Environment&, OwnFd uffd, uint64_t hva, uint64_t length, uint64_t mode) {
  UffdioZeropage request = {{hva, length}, mode, 0};
  const int64_t result = Ioctl(uffd.number, kUffdioZeropage, &request);
  return result < 0 && request.done <= 0 ? result : request.done;
}

int64_t Writeprotect(Environment&, OwnFd uffd, uint64_t hva, uint64_t length, uint64_t mode) {
  UffdioWriteprotect request = {{hva, length}, mode};
  return Ioctl(uffd.number, kUffdioWriteprotect, &request);
}

int64_t Wake(Environment&, OwnFd uffd, uint64_t hva, uint64_t length) {
  UffdioRange range = {hva, length};
  return Ioctl(uffd.number, kUffdioWake, &range);
}

// As many regions as are asked for at once.
constexpr uint64_t kRegions = 512;

void SetBits(uint8_t* bitmap, uint64_t first, uint64_t end) {
  for (; first < end && first % 8 != 0; first++) bitmap[first / 8] |= static_cast<uint8_t>(1U << (first % 8));
  const uint64_t whole = (end - first) / 8;
  memset(bitmap + first / 8, 0xff, whole);
  for (first += whole * 8; first < end; first++) bitmap[first / 8] |= static_cast<uint8_t>(1U << (first % 8));
}

int64_t ScanPagemap(Environment& environment, uint64_t hva, uint64_t length, uint32_t flags, uint64_t inverted,
                    uint64_t mask, uint64_t any_of, Array<uint8_t> bitmap) {
  const uint64_t page = PageSize();
  if (hva % page != 0 || length % page != 0 || length == 0) return -EINVAL;
  const Mapping* mapping = environment.mappings.FindRange(hva, length);
  if (mapping == nullptr) return -EINVAL;
  if (bitmap.length < (length / page + 7) / 8) return -EFAULT;
  const int pagemap = environment.copier.Pagemap();
  if (pagemap < 0) return pagemap;
  PageRegion regions[kRegions];
  PmScanArg scan = {};
  scan.size = sizeof scan;
  scan.flags = flags;
  scan.start = hva;
  scan.end = hva + length;
  scan.vec = reinterpret_cast<uintptr_t>(regions);
  scan.vec_len = kRegions;
  scan.category_inverted = inverted;
  scan.category_mask = mask;
  scan.category_anyof_mask = any_of;
  scan.return_mask = mask | any_of;
  int64_t pages = 0;
  while (scan.start < scan.end) {
    const int64_t found = Ioctl(pagemap, kPagemapScan, &scan);
    if (found == -EINTR) continue;
    if (found < 0) return found;
    for (int64_t i = 0; i < found; i++) {
      const uint64_t first = (regions[i].start - hva) / page;
      const uint64_t end = (regions[i].end - hva) / page;
      SetBits(bitmap.data, first, end);
      pages += static_cast<int64_t>(end - first);
    }
    if (scan.walk_end <= scan.start) break;
    scan.start = scan.walk_end;
  }
  return pages;
}

}  // namespace

void ExportUserfaultfd(Exports exports) {
  Exports group = exports.Group("uffd");
  group.Add<Userfaultfd>("userfaultfd");
  group.Add<Api>("uffdApi");
  group.Add<Register>("uffdRegister");
  group.Add<Unregister>("uffdUnregister");
  group.Add<Copy>("uffdCopy");
  group.Add<Zeropage>("uffdZeropage");
  group.Add<Writeprotect>("uffdWriteprotect");
  group.Add<Wake>("uffdWake");
  group.Add<ScanPagemap>("pagemapScan");
}

}  // namespace kvm_bridge
