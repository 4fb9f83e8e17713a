// The addon's exports: one implementation of KvmCalls (lib/calls/kvm-calls.ts), whose docstrings are the contract, and
// those of HtabLoops (lib/arch/ppc64/model/htab-loops.ts), BitmapLoops (lib/memory/bitmap-loops.ts), AddressLoops
// (lib/memory/address-loops.ts) and KeyLoops (lib/arch/s390x/emulated/key-loops.ts).
#include <napi.h>
#include <sys/utsname.h>

#include "call.h"
#include "kvm_abi.h"

using kvm_bridge::Environment;
using kvm_bridge::Exports;

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* environment = new (std::nothrow) Environment(env);
  if (environment == nullptr) {
    Napi::Error::New(env, "kvm-bridge: no memory").ThrowAsJavaScriptException();
    return exports;
  }
  env.SetInstanceData<Environment>(environment);
  exports.Set("backend", "native");
  exports.Set("arch", kvm_bridge::kArch);
  struct utsname host = {};
  uname(&host);
  exports.Set("release", host.release);
  exports.Set("pageSize", static_cast<double>(kvm_bridge::PageSize()));
  const Exports calls(*environment, exports);
  ExportSystem(calls);
  ExportMemslot(calls);
  ExportMapping(calls);
  ExportEventfd(calls);
  ExportVcpu(calls);
  ExportHtab(calls);
  ExportBitmaps(calls);
  ExportAddresses(calls);
  ExportStorageKeys(calls);
  ExportSharing(calls);
  ExportUserfaultfd(calls);
  ExportArchitecture(calls);
  return exports;
}

NODE_API_MODULE(kvm_bridge, Init)
