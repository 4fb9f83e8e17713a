// What one JavaScript environment (the main thread's or a worker's) owns: descriptors, mappings, vCPU threads. There is
// nothing of an environment's outside this object, so that any number of them may load the addon at once.
#ifndef KVM_BRIDGE_ENVIRONMENT_H_
#define KVM_BRIDGE_ENVIRONMENT_H_

#include <node_api.h>
#include <stdint.h>

#include <memory>

#include "guarded_memory.h"
#include "interrupt.h"
#include "mapping_table.h"
#include "poller.h"
#include "slots.h"
#include "vcpu.h"

namespace kvm_bridge {

// What matters about a descriptor to us; which requests it understands is the kernel's business.
enum class Kind : uint8_t {
  none,
  other,
  vm,
  vcpu,
  // Sealed against shrinking by us.
  memfd,
  htab,
  userfaultfd,
};

struct Descriptor {
  Kind kind = Kind::none;
  Ref<Vcpu> vcpu;
  // Of a VM, and of its vCPUs.
  Ref<VmSlots> slots;
  // Made when it is first waited for.
  Watch* watch = nullptr;
  // Of a userfaultfd: the kernel itself resolves stores to protected pages (UFFD_FEATURE_WP_ASYNC).
  bool resolves_stores = false;
};

class DescriptorTable {
 public:
  explicit DescriptorTable(Poller& poller) : poller_(poller) {}
  DescriptorTable(const DescriptorTable&) = delete;
  DescriptorTable& operator=(const DescriptorTable&) = delete;

  Descriptor* Find(int fd) {
    if (fd < 0 || static_cast<size_t>(fd) >= size_ || by_fd_[fd].kind == Kind::none) return nullptr;
    return &by_fd_[fd];
  }

  // Takes over what a call returned: the descriptor, or the -errno that it passes on. Without memory for it the
  // descriptor is closed again: -ENOMEM.
  int64_t Adopt(int64_t result, Kind kind);
  int64_t AdoptVm(int64_t result);
  // `vm` is whose vCPU it is.
  int64_t AdoptVcpu(int64_t result, const OwnFd& vm);
  // A vCPU of any environment, which is this one's until its descriptor here is closed.
  int64_t Borrow(const Ref<Vcpu>& vcpu);
  // close(2).
  int64_t Close(int fd);
  // `results` is where those wait who began runs here.
  void CloseAll(napi_threadsafe_function results);

 private:
  int64_t Adopt(int64_t result, Descriptor descriptor);
  bool Reserve(size_t size);
  // Keeps a vCPU whose thread has to be told when the environment ends.
  void KeepUnfinished(const Ref<Vcpu>& vcpu);

  Poller& poller_;
  std::unique_ptr<Descriptor[]> by_fd_;
  size_t size_ = 0;
  Ref<Vcpu> first_unfinished_;
};

class Environment;

// What a JavaScript function knows of itself.
struct Binding {
  Environment* environment;
  const char* name;
};

class Environment {
 public:
  explicit Environment(napi_env env);
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  napi_env env() const { return env_; }
  Binding* NewBinding(const char* name);
  // A run of `vcpu` on its own thread; its result settles the promise of `deferred`. 0, or -errno when there is no thread.
  int StartRun(const OwnFd& vcpu, napi_deferred deferred);

  Poller poller;
  DescriptorTable descriptors;
  MappingTable mappings;
  GuardedCopier copier;
  // One for each pointer that a call may pass.
  Scratch scratch;
  Scratch second_scratch;
  RunTimer run_timer;

 private:
  static void OnCleanup(void* self);
  static void OnRunResult(napi_env env, napi_value, void* self, void* result);

  napi_env env_;
  // One for each function that is exported.
  Binding bindings_[128];
  size_t binding_count_ = 0;
  napi_threadsafe_function run_results_ = nullptr;
  uint32_t runs_under_way_ = 0;
};

}  // namespace kvm_bridge

#endif
