// The loops of the HTAB stream codec (lib/arch/ppc64/model/htab-stream.ts, which is the reference) over whole streams and whole
// tables. They are bytes in and bytes out, on every architecture. Runs are mostly short, and how long the next one is
// nobody can predict: up to four entries are therefore moved without a branch.
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "call.h"

namespace kvm_bridge {
namespace {

constexpr uint64_t kHeaderSize = 8;
constexpr uint64_t kEntrySize = 16;
constexpr uint64_t kRunMax = 0xffff;
// HTAB_MAX_TURNS of htab-loops.ts.
constexpr uint64_t kMaxTurns = 64;

// A big-endian doubleword as it is loaded, or a constant as it is compared with one.
constexpr uint64_t BigEndian(uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return word;
#else
  return __builtin_bswap64(word);
#endif
}

constexpr uint64_t kVReserved = BigEndian(UINT64_C(1) << 63);
constexpr uint64_t kVLarge = BigEndian(4);
constexpr uint64_t kVValid = BigEndian(1);
// HVLOCK and ABSENT.
constexpr uint64_t kVOfKvm = BigEndian(0x60);

uint64_t LoadWord(const uint8_t* from) {
  uint64_t word;
  memcpy(&word, from, sizeof word);
  return word;
}

struct Chunk {
  uint64_t index;
  uint64_t valid;
  uint64_t invalid;
};

Chunk LoadHeader(const uint8_t* from, bool is_swapped) {
  uint32_t index;
  uint16_t valid;
  uint16_t invalid;
  memcpy(&index, from, sizeof index);
  memcpy(&valid, from + 4, sizeof valid);
  memcpy(&invalid, from + 6, sizeof invalid);
  // Another thread may change what is shared: what was checked must not be loaded again.
  asm volatile("" : "+r"(index), "+r"(valid), "+r"(invalid));
  if (is_swapped) return {__builtin_bswap32(index), __builtin_bswap16(valid), __builtin_bswap16(invalid)};
  return {index, valid, invalid};
}

void StoreHeader(uint8_t* to, uint64_t index, uint64_t valid, uint64_t invalid, bool is_swapped) {
  auto index32 = static_cast<uint32_t>(index);
  auto valid16 = static_cast<uint16_t>(valid);
  auto invalid16 = static_cast<uint16_t>(invalid);
  if (is_swapped) {
    index32 = __builtin_bswap32(index32);
    valid16 = __builtin_bswap16(valid16);
    invalid16 = __builtin_bswap16(invalid16);
  }
  memcpy(to, &index32, sizeof index32);
  memcpy(to + 4, &valid16, sizeof valid16);
  memcpy(to + 6, &invalid16, sizeof invalid16);
}

// Calls `each` with the offsets of `count` entries, four at a time. Where less than four are left, with some twice.
template <typename Each>
inline void ForEachFour(uint64_t count, Each each) {
  uint64_t at = 0;
  for (; count > 4; count -= 4, at += 4 * kEntrySize) each(at, at + kEntrySize, at + 2 * kEntrySize, at + 3 * kEntrySize);
  if (count == 0) return;
  const uint64_t last = at + (count - 1) * kEntrySize;
  const uint64_t second = at + kEntrySize;
  const uint64_t third = second + kEntrySize;
  each(at, second < last ? second : last, third < last ? third : last, last);
}

// A stream and the table that it is for.
struct Stream {
  const uint8_t* bytes;
  uint64_t length;
  uint64_t entry_count;
  bool is_swapped;

  // Reads the header at `at`; false when there is none, or its slots or its bytes aren't there.
  bool HasChunk(uint64_t at, Chunk& chunk) const {
    if (length - at < kHeaderSize) return false;
    chunk = LoadHeader(bytes + at, is_swapped);
    return chunk.index < entry_count && chunk.index + chunk.valid + chunk.invalid <= entry_count &&
           chunk.valid * kEntrySize <= length - at - kHeaderSize;
  }
};

// Whether any of the entries has L set and a page size that does not exist. `sizes` has 0 for those.
bool HasBadPageSize(const uint8_t* entries, uint64_t count, const uint8_t* sizes) {
  for (const uint8_t* at = entries; at < entries + count * kEntrySize; at += kEntrySize) {
    if ((LoadWord(at) & kVLarge) != 0 && sizes[(at[13] & 0xf) << 4 | at[14] >> 4] == 0) return true;
  }
  return false;
}

constexpr uint64_t kReadAhead = 2048;

bool AreGood(const uint8_t* entries, uint64_t count, const uint8_t* sizes) {
  uint64_t in_all = kVValid;
  uint64_t in_any = 0;
  ForEachFour(count, [&](uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    // Only reading waits for memory here, and the processor alone doesn't look far enough ahead.
    __builtin_prefetch(entries + a + kReadAhead);
    const uint64_t va = LoadWord(entries + a);
    const uint64_t vb = LoadWord(entries + b);
    const uint64_t vc = LoadWord(entries + c);
    const uint64_t vd = LoadWord(entries + d);
    in_all &= va & vb & vc & vd;
    in_any |= va | vb | vc | vd;
  });
  if ((in_all & kVValid) == 0 || (in_any & kVReserved) != 0) return false;
  return (in_any & kVLarge) == 0 || !HasBadPageSize(entries, count, sizes);
}

// V and R, moved at once.
typedef uint64_t Entry16 __attribute__((vector_size(16)));

void MoveEntry(uint8_t* to, const uint8_t* from) {
  const Entry16 kept = {~kVOfKvm, ~UINT64_C(0)};
  Entry16 entry;
  memcpy(&entry, from, sizeof entry);
  entry &= kept;
  memcpy(to, &entry, sizeof entry);
}

void MoveEntries(uint8_t* to, const uint8_t* from, uint64_t count) {
  ForEachFour(count, [=](uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    MoveEntry(to + a, from + a);
    MoveEntry(to + b, from + b);
    MoveEntry(to + c, from + c);
    MoveEntry(to + d, from + d);
  });
}

// A table that no cache holds.
constexpr uint64_t kUncachedTable = UINT64_C(32) << 20;
constexpr uint64_t kUncachedRun = 64;

// As MoveEntries, past the caches: what is to be overwritten is not fetched first.
void MoveEntriesUncached(uint8_t* to, const uint8_t* from, uint64_t count) {
#ifdef __SSE2__
  if (reinterpret_cast<uintptr_t>(to) % kEntrySize == 0) {
    const __m128i kept = _mm_set_epi64x(-1, static_cast<int64_t>(~kVOfKvm));
    for (uint64_t at = 0; at < count * kEntrySize; at += kEntrySize) {
      const __m128i entry = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at));
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + at), _mm_and_si128(entry, kept));
    }
    _mm_sfence();
    return;
  }
#endif
  MoveEntries(to, from, count);
}

// From so many on a call of libc's is the faster one.
constexpr uint64_t kLongRun = 16;

// To clear so many takes no branch; more are libc's.
constexpr uint64_t kLongClear = 4;

void ClearEntries(uint8_t* to, uint64_t count) {
  if (count > kLongClear) {
    memset(to, 0, count * kEntrySize);
    return;
  }
  ForEachFour(count, [=](uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    memset(to + a, 0, kEntrySize);
    memset(to + b, 0, kEntrySize);
    memset(to + c, 0, kEntrySize);
    memset(to + d, 0, kEntrySize);
  });
}

void CopyEntries(uint8_t* to, const uint8_t* from, uint64_t count) {
  if (count > kLongRun) {
    memcpy(to, from, count * kEntrySize);
    return;
  }
  ForEachFour(count, [=](uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    memcpy(to + a, from + a, kEntrySize);
    memcpy(to + b, from + b, kEntrySize);
    memcpy(to + c, from + c, kEntrySize);
    memcpy(to + d, from + d, kEntrySize);
  });
}

bool IsSwapped(bool is_little) { return is_little == (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__); }

bool Overlap(const Array<uint8_t>& a, const Array<uint8_t>& b) {
  return a.data < b.data + b.length && b.data < a.data + a.length;
}

// HtabLoops.apply: 1, or 0 when something is wrong with the stream (or with the arguments) and nothing was done.
int64_t Apply(Environment&, Array<uint8_t> table, Array<uint8_t> bytes, uint8_t is_little, Array<uint8_t> sizes) {
  if (sizes.length < 256 || Overlap(table, bytes)) return 0;
  const Stream stream = {bytes.data, bytes.length, table.length / kEntrySize, IsSwapped(is_little != 0)};
  Chunk chunk;
  uint64_t cleared = 0;
  for (uint64_t at = 0; at < stream.length; at += kHeaderSize + chunk.valid * kEntrySize) {
    if (!stream.HasChunk(at, chunk)) return 0;
    cleared += chunk.invalid;
    if (!AreGood(stream.bytes + at + kHeaderSize, chunk.valid, sizes.data)) return 0;
  }
  if (cleared > kMaxTurns * stream.entry_count) return 0;
  const bool is_cached = table.length < kUncachedTable;
  for (uint64_t at = 0; at < stream.length; at += kHeaderSize + chunk.valid * kEntrySize) {
    // Only another thread can have made this false.
    if (!stream.HasChunk(at, chunk)) return 0;
    uint8_t* const to = table.data + chunk.index * kEntrySize;
    const uint8_t* const entries = stream.bytes + at + kHeaderSize;
    if (is_cached || chunk.valid < kUncachedRun) {
      MoveEntries(to, entries, chunk.valid);
    } else {
      MoveEntriesUncached(to, entries, chunk.valid);
    }
    ClearEntries(to + chunk.valid * kEntrySize, chunk.invalid);
  }
  return 1;
}

// Which of eight entries have all bits of `mask` in the last byte of V: the first one's answer in the lowest bit.
uint64_t MarksOfEight(const uint8_t* entries, uint8_t mask) {
  constexpr uint64_t kOnes = UINT64_C(0x0101010101010101);
  uint64_t bytes = 0;
  for (int i = 0; i < 8; i++) bytes |= static_cast<uint64_t>(entries[i * kEntrySize + 7]) << (8 * i);
  const uint64_t missing = ~bytes & (kOnes * mask);
  // The highest bit of each byte, then the lowest: whether nothing is missing.
  const uint64_t is_some = ((missing & (kOnes * 0x7f)) + kOnes * 0x7f) | missing;
  const uint64_t is_none = (~is_some >> 7) & kOnes;
  return (is_none * UINT64_C(0x0102040810204080)) >> 56;
}

// Runs of marked and of other entries, 64 slots at a time.
class Marks {
 public:
  Marks(const uint8_t* table, uint64_t to, uint8_t mask) : table_(table), to_(to), mask_(mask) {}

  // How many slots from `slot` on, at most `most`, are marked (or not marked). Of a run that goes on in the next block
  // `goes_on` says so, and what is left of this block is the answer.
  uint64_t Run(uint64_t slot, bool is_marked, uint64_t most, bool& goes_on) {
    if (slot - base_ >= 64) Load(slot & ~UINT64_C(63));
    const uint64_t in_block = 64 - (slot - base_);
    const uint64_t others = (is_marked ? ~bits_ : bits_) >> (slot - base_);
    const uint64_t count = others == 0 ? in_block : static_cast<uint64_t>(__builtin_ctzll(others));
    goes_on = others == 0 && in_block < most;
    return count < most ? count : most;
  }

 private:
  void Load(uint64_t base) {
    base_ = base;
    bits_ = 0;
    const uint64_t count = to_ - base < 64 ? to_ - base : 64;
    const uint8_t* const entries = table_ + base * kEntrySize;
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) bits_ |= MarksOfEight(entries + i * kEntrySize, mask_) << i;
    for (; i < count; i++) {
      bits_ |= static_cast<uint64_t>((entries[i * kEntrySize + 7] & mask_) == mask_) << i;
    }
  }

  const uint8_t* const table_;
  const uint64_t to_;
  const uint8_t mask_;
  uint64_t base_ = UINT64_MAX - 63;
  uint64_t bits_ = 0;
};

uint64_t RunEnd(uint64_t slot, uint64_t to) { return to - slot < kRunMax ? to : slot + kRunMax; }

// HtabLoops.encode: the length of the stream, or -ENOSPC when `out` is shorter than that; -EINVAL for arguments that make
// no sense.
int64_t Encode(Environment&, Array<uint8_t> table, uint64_t from, uint64_t to, uint8_t mask, uint8_t is_little,
               Array<uint8_t> out) {
  if (from > to || to > table.length / kEntrySize || Overlap(table, out)) return -EINVAL;
  const bool is_swapped = IsSwapped(is_little != 0);
  Marks marks(table.data, to, mask);
  uint64_t length = 0;
  for (uint64_t slot = from; slot < to;) {
    if (out.length - length < kHeaderSize) return -ENOSPC;
    const uint64_t index = slot;
    uint8_t* const header = out.data + length;
    length += kHeaderSize;
    bool goes_on = true;
    for (const uint64_t end = RunEnd(slot, to); goes_on;) {
      const uint64_t count = marks.Run(slot, true, end - slot, goes_on);
      if (count * kEntrySize > out.length - length) return -ENOSPC;
      CopyEntries(out.data + length, table.data + slot * kEntrySize, count);
      length += count * kEntrySize;
      slot += count;
    }
    const uint64_t valid = slot - index;
    goes_on = slot < to;
    for (const uint64_t end = RunEnd(slot, to); goes_on;) slot += marks.Run(slot, false, end - slot, goes_on);
    StoreHeader(header, index, valid, slot - index - valid, is_swapped);
  }
  return static_cast<int64_t>(length);
}

}  // namespace

void ExportHtab(Exports exports) {
  Exports group = exports.Group("htab");
  group.Add<Apply>("apply");
  group.Add<Encode>("encode");
}

}  // namespace kvm_bridge
