// A dirty bitmap as C programs go through it: 64 pages at a time, the lowest bit by counting trailing zeroes.
#include <stdint.h>

#include "observe.h"

int bench_dirty_pages(const uint64_t* words, uint64_t count, int64_t n, uint32_t* sum) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t total = 0;
    for (uint64_t w = 0; w < count; w++) {
      for (uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
        total += (uint32_t)(w * 64 + (uint64_t)__builtin_ctzll(bits));
      }
    }
    *sum = total;
    observe(sum);
  }
  return 0;
}

// The same in runs of dirty pages: `sum` becomes the sum of first * length.
int bench_dirty_runs(const uint64_t* words, uint64_t count, int64_t n, uint32_t* sum) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t total = 0;
    uint64_t first = 0;
    int is_open = 0;
    for (uint64_t w = 0; w < count; w++) {
      const uint64_t word = words[w];
      if (word == (is_open ? ~UINT64_C(0) : 0)) continue;
      for (unsigned at = 0; at < 64;) {
        const uint64_t rest = (is_open ? ~word : word) >> at;
        if (rest == 0) break;
        at += (unsigned)__builtin_ctzll(rest);
        if (is_open) {
          total += (uint32_t)(first * (w * 64 + at - first));
        } else {
          first = w * 64 + at;
        }
        is_open = !is_open;
      }
    }
    if (is_open) total += (uint32_t)(first * (count * 64 - first));
    *sum = total;
    observe(sum);
  }
  return 0;
}
