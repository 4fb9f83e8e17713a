#include <stdint.h>
#include <string.h>

#include "observe.h"

int bench_memcpy(uint8_t* to, const uint8_t* from, uint64_t size, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    memcpy(to, from, size);
    observe(to);
  }
  return 0;
}
