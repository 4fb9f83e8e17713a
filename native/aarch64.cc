// What only aarch64 has: no calls of its own.
#if defined(__aarch64__)

#include "call.h"

namespace kvm_bridge {

const char* const kArch = "aarch64";

void ExportArchitecture(Exports) {}

}  // namespace kvm_bridge

#endif
