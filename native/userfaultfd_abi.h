// The kernel's ABI of userfaultfd(2) and of PAGEMAP_SCAN, under names of our own: headers older than either are of no matter.
#ifndef KVM_BRIDGE_USERFAULTFD_ABI_H_
#define KVM_BRIDGE_USERFAULTFD_ABI_H_

#include <stdint.h>
#include <sys/ioctl.h>

namespace kvm_bridge {

constexpr uint32_t kUffdio = 0xaa;
constexpr uint64_t kUffdApi = 0xaa;
constexpr uint32_t kUserModeOnly = 1;
constexpr uint64_t kModeMissing = 1;
constexpr uint64_t kModeWp = 2;
constexpr uint64_t kFeatureWpAsync = uint64_t{1} << 15;

struct UffdioApi {
  uint64_t api;
  uint64_t features;
  uint64_t ioctls;
};

struct UffdioRange {
  uint64_t start;
  uint64_t length;
};

struct UffdioRegister {
  UffdioRange range;
  uint64_t mode;
  uint64_t ioctls;
};

struct UffdioCopy {
  uint64_t to;
  uint64_t from;
  uint64_t length;
  uint64_t mode;
  int64_t done;
};

struct UffdioZeropage {
  UffdioRange range;
  uint64_t mode;
  int64_t done;
};

struct UffdioWriteprotect {
  UffdioRange range;
  uint64_t mode;
};

struct PageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

struct PmScanArg {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};

constexpr auto kUserfaultfdNew = _IO(kUffdio, 0x00);
constexpr auto kUffdioApi = _IOWR(kUffdio, 0x3f, UffdioApi);
constexpr auto kUffdioRegister = _IOWR(kUffdio, 0x00, UffdioRegister);
constexpr auto kUffdioUnregister = _IOR(kUffdio, 0x01, UffdioRange);
constexpr auto kUffdioWake = _IOR(kUffdio, 0x02, UffdioRange);
constexpr auto kUffdioCopy = _IOWR(kUffdio, 0x03, UffdioCopy);
constexpr auto kUffdioZeropage = _IOWR(kUffdio, 0x04, UffdioZeropage);
constexpr auto kUffdioWriteprotect = _IOWR(kUffdio, 0x06, UffdioWriteprotect);
constexpr auto kPagemapScan = _IOWR('f', 16, PmScanArg);

}  // namespace kvm_bridge

#endif
