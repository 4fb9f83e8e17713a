#include "environment.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>

namespace kvm_bridge {

int64_t DescriptorTable::Adopt(int64_t result, Kind kind) {
  Descriptor descriptor;
  descriptor.kind = kind;
  return Adopt(result, std::move(descriptor));
}

int64_t DescriptorTable::AdoptVm(int64_t result) {
  Descriptor descriptor;
  descriptor.kind = Kind::vm;
  descriptor.slots = Ref<VmSlots>::Make();
  return Adopt(result, std::move(descriptor));
}

int64_t DescriptorTable::AdoptVcpu(int64_t result, const OwnFd& vm) {
  Descriptor descriptor;
  descriptor.kind = Kind::vcpu;
  descriptor.slots = vm.descriptor->slots;
  return Adopt(result, std::move(descriptor));
}

int64_t DescriptorTable::Borrow(const Ref<Vcpu>& vcpu) {
  const int64_t result = vcpu->Lend();
  if (result < 0) return result;
  const auto fd = static_cast<int>(result);
  if (!Reserve(static_cast<size_t>(fd) + 1)) {
    vcpu->Close(fd);
    return -ENOMEM;
  }
  Descriptor descriptor;
  descriptor.kind = Kind::vcpu;
  descriptor.vcpu = vcpu;
  descriptor.slots = vcpu->slots();
  by_fd_[fd] = std::move(descriptor);
  return result;
}

int64_t DescriptorTable::Adopt(int64_t result, Descriptor descriptor) {
  if (result < 0) return result;
  const auto fd = static_cast<int>(result);
  if (!Reserve(static_cast<size_t>(fd) + 1) || (descriptor.kind == Kind::vm && !descriptor.slots)) {
    close(fd);
    return -ENOMEM;
  }
  if (descriptor.kind == Kind::vcpu) {
    int error;
    descriptor.vcpu = Vcpu::Adopt(fd, descriptor.slots, &error);
    if (error != 0) return error;
  }
  by_fd_[fd] = std::move(descriptor);
  return result;
}

bool DescriptorTable::Reserve(size_t size) {
  if (size <= size_) return true;
  const size_t larger = std::max(size, 2 * size_);
  std::unique_ptr<Descriptor[]> grown(new (std::nothrow) Descriptor[larger]);
  if (grown == nullptr) return false;
  std::move(by_fd_.get(), by_fd_.get() + size_, grown.get());
  by_fd_ = std::move(grown);
  size_ = larger;
  return true;
}

int64_t DescriptorTable::Close(int fd) {
  Descriptor* found = Find(fd);
  if (found == nullptr) return -EBADF;
  poller_.Forget(found->watch, -EBADF);
  const Descriptor descriptor = std::move(*found);
  *found = Descriptor();
  if (!descriptor.vcpu) return close(fd) == 0 ? 0 : -errno;
  const int64_t closed = descriptor.vcpu->Close(fd);
  if (descriptor.vcpu->IsUnfinished(fd)) KeepUnfinished(descriptor.vcpu);
  return closed;
}

void DescriptorTable::KeepUnfinished(const Ref<Vcpu>& vcpu) {
  Ref<Vcpu> kept = vcpu;
  for (Ref<Vcpu> other = std::move(first_unfinished_); other;) {
    Ref<Vcpu> next = std::move(other->next_unfinished);
    if (other->is_unfinished()) {
      other->next_unfinished = std::move(kept);
      kept = std::move(other);
    }
    other = std::move(next);
  }
  first_unfinished_ = std::move(kept);
}

void DescriptorTable::CloseAll(napi_threadsafe_function results) {
  for (Vcpu* vcpu = first_unfinished_.get(); vcpu != nullptr; vcpu = vcpu->next_unfinished.get()) {
    vcpu->Disconnect(results);
  }
  // Interrupt every guest before waiting for the first of them.
  for (size_t fd = 0; fd < size_; fd++) {
    if (!by_fd_[fd].vcpu) continue;
    by_fd_[fd].vcpu->Disconnect(results);
    by_fd_[fd].vcpu->Kick();
  }
  for (size_t fd = 0; fd < size_; fd++) Close(static_cast<int>(fd));
}

Environment::Environment(napi_env env) : poller(env), descriptors(poller), env_(env) {
  napi_value name;
  napi_create_string_utf8(env, "kvm-bridge.run", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, OnRunResult, &run_results_);
  // Only a run under way keeps the process alive.
  napi_unref_threadsafe_function(env, run_results_);
  // Hooks run in reverse order: this one comes before the thread-safe function goes.
  napi_add_env_cleanup_hook(env, OnCleanup, this);
}

Binding* Environment::NewBinding(const char* name) {
  Binding* binding = &bindings_[binding_count_++];
  *binding = {this, name};
  return binding;
}

int Environment::StartRun(const OwnFd& vcpu, napi_deferred deferred) {
  const int started = vcpu.descriptor->vcpu->RunOnOwnThread(vcpu.number, run_results_, deferred);
  if (started == 0 && runs_under_way_++ == 0) napi_ref_threadsafe_function(env_, run_results_);
  return started;
}

void Environment::OnRunResult(napi_env env, napi_value, void* self, void* data) {
  auto* result = static_cast<RunResult*>(data);
  // The vCPU has the result, and this reference lets it live until here.
  const Ref<Vcpu> vcpu = std::move(result->vcpu);
  const RunResult ended = {Ref<Vcpu>(), result->deferred, result->value};
  // From now on another environment may run it.
  vcpu->set_idle();
  // The environment is going away: nobody waits any more.
  if (env == nullptr) return;
  auto* environment = static_cast<Environment*>(self);
  if (--environment->runs_under_way_ == 0) napi_unref_threadsafe_function(env, environment->run_results_);
  napi_value value;
  if (napi_create_int32(env, ended.value, &value) == napi_ok) napi_resolve_deferred(env, ended.deferred, value);
}

// At process exit and when a worker ends: first no guest runs any more, then no descriptor, then no memory.
void Environment::OnCleanup(void* self) {
  auto* environment = static_cast<Environment*>(self);
  environment->poller.End();
  // No guest leaves that waits for a page which nobody will bring any more.
  environment->mappings.EndServingAll();
  environment->descriptors.CloseAll(environment->run_results_);
  napi_handle_scope scope;
  if (napi_open_handle_scope(environment->env_, &scope) == napi_ok) {
    environment->mappings.RemoveAll();
    napi_close_handle_scope(environment->env_, scope);
  }
}

}  // namespace kvm_bridge
