// The loops over dirty bitmaps (lib/memory/bitmap-loops.ts, which has the reference): words in, places of bits out. In a bitmap in
// which every other page is dirty nobody can predict which bit is the next, so that several are stored for each branch.
#include <string.h>

#include "call.h"

namespace kvm_bridge {
namespace {

constexpr uint64_t kBits = 64;
// Words that are looked at together: there is no branch for each, which would be guessed wrong where few pages are dirty.
constexpr size_t kGroup = 8;

// The places of the bits that are set, for each byte.
struct PlacesOfByte {
  double of[256][8] = {};

  constexpr PlacesOfByte() {
    for (int byte = 0; byte < 256; byte++) {
      int count = 0;
      for (int bit = 0; bit < 8; bit++) {
        if ((byte >> bit & 1) != 0) of[byte][count++] = bit;
      }
    }
  }
};

constexpr PlacesOfByte kPlaces;

// In each byte, how many bits are set in it and those below it.
uint64_t SumsOfBytes(uint64_t bits) {
  bits -= bits >> 1 & UINT64_C(0x5555'5555'5555'5555);
  bits = (bits & UINT64_C(0x3333'3333'3333'3333)) + (bits >> 2 & UINT64_C(0x3333'3333'3333'3333));
  bits = (bits + (bits >> 4)) & UINT64_C(0x0f0f'0f0f'0f0f'0f0f);
  return bits * UINT64_C(0x0101'0101'0101'0101);
}

// The doubles that are stored, one after the other.
class Places {
 public:
  Places(Array<double> into, uint64_t at) : next_(into.data + at), end_(into.data + into.length) {}

  bool full() const { return next_ == end_; }
  double* next() const { return next_; }

  // `first` plus the index of every bit that is set, in ascending order.
  void Add(uint64_t bits, double first) {
    if (static_cast<uint64_t>(end_ - next_) >= kBits && IsDense(bits)) {
      AddBytes(bits, first);
      return;
    }
    for (; bits != 0 && !full(); bits &= bits - 1) *next_++ = first + static_cast<double>(__builtin_ctzll(bits));
  }

 private:
  // Whether each 16 bits have one.
  static bool IsDense(uint64_t bits) {
    constexpr uint64_t kLowest = UINT64_C(0x0001'0001'0001'0001);
    return ((bits - kLowest) & ~bits & kLowest << 15) == 0;
  }

  // Eight doubles are stored for each byte, whether it has so many bits or not: there is no branch to be guessed wrong, and where
  // those of the next byte go doesn't depend on a table.
  void AddBytes(uint64_t bits, double first) {
    const uint64_t sums = SumsOfBytes(bits);
    for (int shift = 0; shift < 64; shift += 8, first += 8) {
      const double* const places = kPlaces.of[bits >> shift & 0xff];
      double eight[8];
      for (int bit = 0; bit < 8; bit++) eight[bit] = first + places[bit];
      memcpy(next_ + (sums << 8 >> shift & 0xff), eight, sizeof eight);
    }
    next_ += sums >> 56;
  }

  double* next_;
  double* const end_;
};

// A group of words from `word` on, zeros behind the last one. KVM's bitmaps are little-endian on every architecture.
void LoadGroup(Array<uint32_t> words, size_t word, uint64_t (&group)[kGroup]) {
  const size_t left = words.length - 2 * word;
  if (left >= 2 * kGroup) {
    memcpy(group, words.data + 2 * word, sizeof group);
  } else {
    memset(group, 0, sizeof group);
    memcpy(group, words.data + 2 * word, left * sizeof *words.data);
  }
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  for (uint64_t& bits : group) bits = __builtin_bswap64(bits);
#endif
}

// Adds every bit that is set from `from` on; with kEdges, every bit that is another than the one before, which at `from` is `before`.
template <bool kEdges>
void AddAll(Array<uint32_t> words, uint64_t base, uint64_t from, uint64_t before, Places& places) {
  uint64_t wanted = UINT64_MAX << from % kBits;
  for (size_t word = from / kBits; 2 * word < words.length && !places.full(); word += kGroup) {
    uint64_t group[kGroup];
    LoadGroup(words, word, group);
    group[0] &= wanted;
    wanted = UINT64_MAX;
    uint64_t any = kEdges ? before : 0;
    for (const uint64_t bits : group) any |= bits;
    if (any == 0) continue;
    unsigned mask = 0;
    for (size_t i = 0; i < kGroup; i++) {
      const uint64_t bits = group[i];
      if (kEdges) {
        group[i] ^= bits << 1 | before;
        before = bits >> 63;
      }
      mask |= static_cast<unsigned>(group[i] != 0) << i;
    }
    for (; mask != 0; mask &= mask - 1) {
      const auto i = static_cast<size_t>(__builtin_ctz(mask));
      places.Add(group[i], static_cast<double>(base + (word + i) * kBits));
    }
  }
}

bool MakesSense(Array<uint32_t> words, uint64_t base, Array<double> into, uint64_t at) {
  constexpr uint64_t kMaxSafeInteger = (UINT64_C(1) << 53) - 1;
  return at <= into.length && base <= kMaxSafeInteger - words.length * 32;
}

// BitmapLoops.list: the index after the last that was stored; -EINVAL for arguments that make no sense.
int64_t List(Environment&, Array<uint32_t> words, uint64_t base, uint64_t from, Array<double> into, uint64_t at) {
  if (!MakesSense(words, base, into, at)) return -EINVAL;
  Places places(into, at);
  AddAll<false>(words, base, from, 0, places);
  return places.next() - into.data;
}

// BitmapLoops.listRuns. Where runs begin and end is where a bit is another than the one before.
int64_t ListRuns(Environment&, Array<uint32_t> words, uint64_t base, uint64_t from, Array<double> into, uint64_t at) {
  if (!MakesSense(words, base, into, at) || at % 2 != 0) return -EINVAL;
  into.length -= into.length % 2;
  double* first = into.data + at;
  // The last run may go on: its end is looked for again.
  uint64_t before = 0;
  if (at > 0 && from == 0 && first[-2] + first[-1] == static_cast<double>(base)) {
    before = 1;
    first -= 2;
    at--;
  }
  Places places(into, at);
  AddAll<true>(words, base, from, before, places);
  double* const last = places.next();
  double* behind = last;
  if ((last - into.data) % 2 != 0) *behind++ = static_cast<double>(base + words.length * 32);
  for (; first < behind; first += 2) first[1] -= first[0];
  return behind - into.data;
}

}  // namespace

void ExportBitmaps(Exports exports) {
  Exports group = exports.Group("bitmaps");
  group.Add<List>("list");
  group.Add<ListRuns>("listRuns");
}

}  // namespace kvm_bridge
