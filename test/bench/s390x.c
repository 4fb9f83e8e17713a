// Reads of an s390x guest's virtual memory as a C program would do them: a walk through its tables for every page.
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "observe.h"

static uint64_t load64(const uint8_t* at) {
  uint64_t word;
  memcpy(&word, at, 8);
  return __builtin_bswap64(word);
}

// The absolute address of a virtual one, or -1: all checks that tables without EDAT ask for.
static int64_t translate(const uint8_t* memory, uint64_t size, uint64_t asce, uint64_t va) {
  static const int shifts[] = {20, 31, 42, 53};
  int level = (asce >> 2) & 3;
  if (level < 3 && va >> (shifts[level] + 11) != 0) return -1;
  uint64_t origin = asce & ~UINT64_C(0xfff);
  uint64_t first = 0, last = asce & 3;
  for (; level >= 0; level--) {
    const uint64_t index = (va >> shifts[level]) & 0x7ff;
    if (index >> 9 < first || index >> 9 > last || origin + index * 8 + 8 > size) return -1;
    const uint64_t entry = load64(memory + origin + index * 8);
    if ((entry & 0x20) != 0 || ((entry >> 2) & 3) != (uint64_t)level) return -1;
    first = (entry >> 6) & 3;
    last = entry & 3;
    origin = entry & (level == 0 ? ~UINT64_C(0x7ff) : ~UINT64_C(0xfff));
  }
  const uint64_t at = origin + ((va >> 12) & 0xff) * 8;
  if (at + 8 > size) return -1;
  const uint64_t page = load64(memory + at);
  if ((page & 0xc00) != 0 || (page & ~UINT64_C(0xfff)) + 4096 > size) return -1;
  return (int64_t)((page & ~UINT64_C(0xfff)) | (va & 0xfff));
}

// Reads `bytes` bytes from one virtual address after the other, `n` times in all.
int bench_s390x_read(const uint8_t* memory, uint64_t size, uint64_t asce, const double* vas, uint32_t count,
                     uint32_t bytes, uint8_t* into, int64_t n) {
  uint32_t next = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint64_t va = (uint64_t)vas[next];
    if (++next == count) next = 0;
    for (uint32_t done = 0; done < bytes;) {
      const int64_t at = translate(memory, size, asce, va + done);
      if (at < 0) return -1;
      uint32_t length = 4096 - ((va + done) & 0xfff);
      if (length > bytes - done) length = bytes - done;
      memcpy(into + done, memory + at, length);
      done += length;
    }
    observe(into);
  }
  return 0;
}

// The cheapest way into the kernel and back that is an ioctl.
int bench_bare_ioctl(int64_t n) {
  int ends[2];
  int result = 0;
  if (pipe(ends) != 0) return -1;
  for (int64_t i = 0; i < n && result == 0; i++) {
    int waiting;
    result = ioctl(ends[0], FIONREAD, &waiting);
  }
  close(ends[0]);
  close(ends[1]);
  return result;
}
