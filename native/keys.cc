// The loop over storage keys (lib/arch/s390x/emulated/key-loops.ts, which has the reference).
#include "call.h"

namespace kvm_bridge {
namespace {

// KeyLoops.note: 0; -EINVAL for arrays of different lengths.
int64_t Note(Environment&, Array<uint8_t> last, Array<uint8_t> keys) {
  constexpr uint8_t kChanged = 1;
  if (last.length != keys.length) return -EINVAL;
  // No branch for each, so that the compiler makes many at once of it.
  for (size_t i = 0; i < keys.length; i++) {
    const uint8_t before = last.data[i];
    const uint8_t key = keys.data[i];
    const uint8_t is_other = ((before ^ key) & ~kChanged) != 0 ? kChanged : 0;
    last.data[i] = key | is_other | (before & kChanged);
  }
  return 0;
}

}  // namespace

void ExportStorageKeys(Exports exports) {
  Exports group = exports.Group("storageKeys");
  group.Add<Note>("note");
}

}  // namespace kvm_bridge
