// The ioctls in a loop. As in all of these files, a function does `n` operations and returns 0, or -1 when it failed.
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>

int bench_check_extension(int fd, uint64_t cap, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (ioctl(fd, KVM_CHECK_EXTENSION, cap) < 0) return -1;
  }
  return 0;
}

static int set_region(int vm, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size, uint64_t hva) {
  struct kvm_userspace_memory_region region = {
      .slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = hva};
  return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

// Turns LOG_DIRTY_PAGES on and off: two ioctls are one operation.
int bench_toggle_flags(int vm, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t hva, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (set_region(vm, slot, KVM_MEM_LOG_DIRTY_PAGES, gpa, size, hva) != 0) return -1;
    if (set_region(vm, slot, 0, gpa, size, hva) != 0) return -1;
  }
  return 0;
}

int bench_create_delete(int vm, uint32_t slot, uint64_t gpa, uint64_t size, uint64_t hva, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (set_region(vm, slot, 0, gpa, size, hva) != 0) return -1;
    if (set_region(vm, slot, 0, gpa, 0, hva) != 0) return -1;
  }
  return 0;
}

int bench_get_dirty_log(int vm, uint32_t slot, void* bitmap, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bitmap};
    if (ioctl(vm, KVM_GET_DIRTY_LOG, &log) != 0) return -1;
  }
  return 0;
}
