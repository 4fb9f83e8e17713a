// A run loop with one MMIO range, as a small C program has it.
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "observe.h"

// Runs until the guest halts; *accesses counts the MMIO accesses in [base, base + size), of which loads get 0x42.
int bench_run_until_hlt(int vcpu, struct kvm_run* run, uint64_t base, uint64_t size, uint32_t* accesses) {
  uint32_t stored = 0;
  *accesses = 0;
  for (;;) {
    if (ioctl(vcpu, KVM_RUN, 0) != 0) {
      if (errno == EINTR) continue;
      return -1;
    }
    if (run->exit_reason == KVM_EXIT_HLT) break;
    if (run->exit_reason != KVM_EXIT_MMIO) return -1;
    if (run->mmio.phys_addr < base || run->mmio.phys_addr + run->mmio.len > base + size) return -1;
    if (run->mmio.is_write) {
      memcpy(&stored, run->mmio.data, sizeof stored);
      observe(&stored);
    } else {
      const uint32_t value = 0x42;
      memcpy(run->mmio.data, &value, sizeof value);
    }
    ++*accesses;
  }
  return 0;
}
