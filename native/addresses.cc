// The loop over addresses (lib/memory/address-loops.ts, which has the reference): guest physical addresses in, host virtual ones out.
#include <string.h>

#include <algorithm>

#include "call.h"

namespace kvm_bridge {
namespace {

// What most processors take at once, where the compiler would take one after the other.
using Doubles = double __attribute__((vector_size(16)));
using Masks = decltype(Doubles{} == Doubles{});
constexpr size_t kLanes = sizeof(Doubles) / sizeof(double);
// Addresses that are looked at together, without a branch for each.
constexpr size_t kGroup = 16;
// Added and taken away again it makes an integer of a double below 2^51.
constexpr double kToInteger = 1.5 * (UINT64_C(1) << 52);

struct Window {
  double low;
  double high;
  double hva;
};

// Of a group, whether all are integers below 2^51 in the window.
bool PlaceGroup(const double* gpas, double* into, const Window& window) {
  Masks right = Doubles{} == Doubles{};
  for (size_t lane = 0; lane < kGroup; lane += kLanes) {
    Doubles gpa;
    memcpy(&gpa, gpas + lane, sizeof gpa);
    right &= (gpa >= window.low) & (gpa <= window.high) & (gpa + kToInteger - kToInteger == gpa);
    gpa = gpa - window.low + window.hva;
    memcpy(into + lane, &gpa, sizeof gpa);
  }
  for (size_t lane = 1; lane < kLanes; lane++) right[0] &= right[lane];
  return right[0] != 0;
}

// Of the same, how many are in the window up to the first that isn't, or is no integer.
size_t PlaceEach(const double* gpas, double* into, size_t count, const Window& window) {
  for (size_t i = 0; i < count; i++) {
    const double gpa = ReadOnce(gpas + i);
    // In the window: so it can be converted.
    if (!(gpa >= window.low && gpa <= window.high) || static_cast<double>(static_cast<int64_t>(gpa)) != gpa) return i;
    into[i] = gpa - window.low + window.hva;
  }
  return count;
}

// AddressLoops.place: how many have a place; -EINVAL for arguments that make no sense.
int64_t Place(Environment&, Array<double> gpas, uint64_t from, Array<double> into, uint64_t at, uint64_t count, uint64_t low,
              uint64_t high, uint64_t hva) {
  constexpr uint64_t kMaxSafeInteger = (UINT64_C(1) << 53) - 1;
  if (from > gpas.length || count > gpas.length - from || at > into.length || count > into.length - at) return -EINVAL;
  if (low > kMaxSafeInteger || high > kMaxSafeInteger || hva > kMaxSafeInteger) return -EINVAL;
  if (high > low && high - low > kMaxSafeInteger - hva) return -EINVAL;
  const Window window = {static_cast<double>(low), static_cast<double>(high), static_cast<double>(hva)};
  const double* const source = gpas.data + from;
  double* const target = into.data + at;
  for (size_t done = 0; done < count;) {
    const size_t group = std::min<size_t>(kGroup, count - done);
    if (group == kGroup && PlaceGroup(source + done, target + done, window)) {
      done += kGroup;
      continue;
    }
    const size_t placed = PlaceEach(source + done, target + done, group, window);
    done += placed;
    if (placed < group) return static_cast<int64_t>(done);
  }
  return static_cast<int64_t>(count);
}

}  // namespace

void ExportAddresses(Exports exports) {
  Exports group = exports.Group("addresses");
  group.Add<Place>("place");
}

}  // namespace kvm_bridge
