#include "environment.h"

#include <errno.h>
#include <unistd.h>

namespace kvm_bridge {

int64_t DescriptorTable::Adopt(int64_t result, Kind kind) {
  if (result < 0) return result;
  Descriptor descriptor;
  descriptor.kind = kind;
  if (kind == Kind::vcpu) {
    int error;
    descriptor.vcpu = Vcpu::Adopt(static_cast<int>(result), &error);
    if (error != 0) return error;
  }
  const auto index = static_cast<size_t>(result);
  if (index >= by_fd_.size()) by_fd_.resize(index + 1);
  by_fd_[index] = std::move(descriptor);
  return result;
}

int64_t DescriptorTable::Close(int fd) {
  Descriptor* found = Find(fd);
  if (found == nullptr) return -EBADF;
  const Descriptor descriptor = std::move(*found);
  *found = Descriptor();
  if (descriptor.vcpu != nullptr) return descriptor.vcpu->Close();
  return close(fd) == 0 ? 0 : -errno;
}

void DescriptorTable::CloseAll() {
  // Interrupt every guest before waiting for the first of them.
  for (const Descriptor& descriptor : by_fd_) {
    if (descriptor.vcpu == nullptr) continue;
    descriptor.vcpu->Disconnect();
    descriptor.vcpu->Kick();
  }
  for (size_t fd = 0; fd < by_fd_.size(); fd++) Close(static_cast<int>(fd));
}

Environment::Environment(napi_env env) : env_(env) {
  napi_value name;
  napi_create_string_utf8(env, "kvm-bridge.run", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, OnRunResult, &run_results_);
  // Only a run under way keeps the process alive.
  napi_unref_threadsafe_function(env, run_results_);
  // Hooks run in reverse order: this one comes before the thread-safe function goes.
  napi_add_env_cleanup_hook(env, OnCleanup, this);
}

Binding* Environment::NewBinding(const char* name) {
  bindings_.push_back({this, name});
  return &bindings_.back();
}

int Environment::StartRun(Vcpu& vcpu, napi_deferred deferred) {
  const int started = vcpu.RunOnOwnThread(run_results_, deferred);
  if (started == 0 && runs_under_way_++ == 0) napi_ref_threadsafe_function(env_, run_results_);
  return started;
}

void Environment::OnRunResult(napi_env env, napi_value, void* self, void* data) {
  const std::unique_ptr<RunResult> result(static_cast<RunResult*>(data));
  // The environment is going away: nobody waits any more.
  if (env == nullptr) return;
  auto* environment = static_cast<Environment*>(self);
  result->vcpu->set_idle();
  if (--environment->runs_under_way_ == 0) napi_unref_threadsafe_function(env, environment->run_results_);
  napi_value value;
  if (napi_create_int32(env, result->value, &value) == napi_ok) napi_resolve_deferred(env, result->deferred, value);
}

// At process exit and when a worker ends: first no guest runs any more, then no descriptor, then no memory.
void Environment::OnCleanup(void* self) {
  auto* environment = static_cast<Environment*>(self);
  environment->descriptors.CloseAll();
  napi_handle_scope scope;
  if (napi_open_handle_scope(environment->env_, &scope) == napi_ok) {
    environment->mappings.RemoveAll(environment->env_);
    napi_close_handle_scope(environment->env_, scope);
  }
}

}  // namespace kvm_bridge
