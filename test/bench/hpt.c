// The HTAB stream as a C program would take it apart and put it together, and the hash as it would search it.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "observe.h"

enum { ENTRY = 16, HEADER = 8, RUN_MAX = 0xffff, GROUP = 8 };

static uint64_t load64(const uint8_t* at) {
  uint64_t word;
  memcpy(&word, at, 8);
  return __builtin_bswap64(word);
}

static void store64(uint8_t* at, uint64_t word) {
  word = __builtin_bswap64(word);
  memcpy(at, &word, 8);
}

// Checks a stream and puts its entries into a table, HVLOCK and ABSENT cleared.
int bench_htab_decode(const uint8_t* stream, uint64_t length, uint8_t* table, uint64_t entries, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    for (uint64_t at = 0; at < length;) {
      uint32_t index;
      uint16_t valid, invalid;
      if (at + HEADER > length) return -1;
      memcpy(&index, stream + at, 4);
      memcpy(&valid, stream + at + 4, 2);
      memcpy(&invalid, stream + at + 6, 2);
      at += HEADER;
      if ((uint64_t)index + valid + invalid > entries || at + (uint64_t)valid * ENTRY > length) return -1;
      uint8_t* to = table + (uint64_t)index * ENTRY;
      for (uint32_t slot = 0; slot < valid; slot++, at += ENTRY, to += ENTRY) {
        const uint64_t v = load64(stream + at);
        if ((v & 1) == 0 || v >> 63 != 0) return -1;
        store64(to, v & ~UINT64_C(0x60));
        memcpy(to + 8, stream + at + 8, 8);
      }
      memset(to, 0, (uint64_t)invalid * ENTRY);
    }
    observe(table);
  }
  return 0;
}

// A table as a first pass; `length` becomes its bytes.
int bench_htab_encode(const uint8_t* table, uint64_t entries, uint8_t* stream, int64_t n, double* length) {
  for (int64_t i = 0; i < n; i++) {
    uint8_t* to = stream;
    for (uint64_t slot = 0; slot < entries;) {
      const uint32_t index = (uint32_t)slot;
      uint8_t* const header = to;
      to += HEADER;
      while (slot < entries && slot - index < RUN_MAX && (table[slot * ENTRY + 7] & 1) != 0) {
        memcpy(to, table + slot * ENTRY, ENTRY);
        to += ENTRY;
        slot++;
      }
      const uint16_t valid = (uint16_t)(slot - index);
      const uint64_t first = slot;
      while (slot < entries && slot - first < RUN_MAX && (table[slot * ENTRY + 7] & 1) == 0) slot++;
      const uint16_t invalid = (uint16_t)(slot - first);
      memcpy(header, &index, 4);
      memcpy(header + 4, &valid, 2);
      memcpy(header + 6, &invalid, 2);
    }
    *length = (double)(to - stream);
    observe(stream);
  }
  return 0;
}

// The same into new memory each time.
int bench_htab_encode_new(const uint8_t* table, uint64_t entries, int64_t n, double* length) {
  for (int64_t i = 0; i < n; i++) {
    uint8_t* const most = malloc(entries * ENTRY + (entries / RUN_MAX + 1) * HEADER);
    if (most == NULL) return -1;
    bench_htab_encode(table, entries, most, 1, length);
    uint8_t* const stream = realloc(most, (size_t)*length);
    if (stream == NULL) return -1;
    observe(stream);
    free(stream);
  }
  return 0;
}

// Translates effective addresses in one 1 TiB segment with 4 KiB pages; `sum` becomes the sum of the real page numbers.
int bench_hpt_translate(const uint8_t* table, uint64_t groups, uint64_t vsid, const double* eas, uint32_t count, int64_t n,
                        uint32_t* sum) {
  uint32_t total = 0;
  uint32_t next = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint64_t offset = (uint64_t)eas[next] & ((UINT64_C(1) << 40) - 1);
    if (++next == count) next = 0;
    const uint64_t want = UINT64_C(1) << 62 | ((vsid << 24 | offset >> 16) & ~UINT64_C(0x7f));
    uint64_t hash = vsid ^ (vsid << 25) ^ offset >> 12;
    for (uint64_t secondary = 0; secondary <= 2; secondary += 2, hash = ~hash) {
      const uint8_t* at = table + (hash & (groups - 1)) * GROUP * ENTRY;
      int slot = 0;
      while (slot < GROUP && (load64(at) & ~UINT64_C(0x78)) != (want | secondary | 1)) slot++, at += ENTRY;
      if (slot == GROUP) continue;
      total += (uint32_t)(load64(at + 8) >> 12);
      break;
    }
  }
  *sum = total;
  observe(sum);
  return 0;
}

// H_ENTER into the first free slot of each group in turn, and emptying the table when it is full, without what KVM has beside it.
int bench_hpt_enter(uint8_t* table, uint64_t groups, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const uint64_t number = (uint64_t)i;
    uint8_t* at = table + (number % groups) * GROUP * ENTRY;
    if (number % (groups * GROUP) == 0) memset(table, 0, groups * GROUP * ENTRY);
    for (int slot = 0; slot < GROUP; slot++, at += ENTRY) {
      if ((at[7] & 1) != 0) continue;
      store64(at, UINT64_C(0x4001ffffff000011));
      store64(at + 8, (number % 4096) << 12 | 0x12);
      break;
    }
  }
  observe(table);
  return 0;
}
