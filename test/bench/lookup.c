// Guest memory as a C program would read it: a sorted table, a binary search for each address, a load.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "observe.h"

struct slot {
  uint64_t start;
  uint64_t end;
  uint8_t* host;
};

static uint8_t* host_address(const struct slot* slots, size_t count, uint64_t gpa, size_t size) {
  size_t low = 0;
  size_t high = count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (slots[middle].start <= gpa) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return NULL;
  const struct slot* slot = &slots[low - 1];
  return gpa + size <= slot->end ? slot->host + (gpa - slot->start) : NULL;
}

// Reads u64 at `n` of the addresses, over and over again, into *sum.
int bench_read_u64(const struct slot* slots, uint32_t count, const uint64_t* gpas, uint32_t gpa_count, int64_t n,
                   uint64_t* sum) {
  uint64_t total = 0;
  uint32_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint8_t* host = host_address(slots, count, gpas[at], sizeof(uint64_t));
    if (host == NULL) return -1;
    uint64_t value;
    memcpy(&value, host, sizeof value);
    total += value;
    if (++at == gpa_count) at = 0;
  }
  *sum = total;
  return 0;
}

// Copies a piece of `size` bytes at each address into `into`; all pieces together are one operation.
int bench_gather(const struct slot* slots, uint32_t count, const uint64_t* gpas, uint32_t gpa_count, uint32_t size,
                    uint8_t* into, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    for (uint32_t at = 0; at < gpa_count; at++) {
      const uint8_t* host = host_address(slots, count, gpas[at], size);
      if (host == NULL) return -1;
      memcpy(into + (size_t)at * size, host, size);
    }
    observe(into);
  }
  return 0;
}
