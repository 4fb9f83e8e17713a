// What only riscv64 has: no calls of its own.
#if defined(__riscv) && __riscv_xlen == 64

#include "call.h"

namespace kvm_bridge {

const char* const kArch = "riscv64";

void ExportArchitecture(Exports) {}

}  // namespace kvm_bridge

#endif
