#include "poller.h"

#include <errno.h>
#include <poll.h>

#include <new>
#include <utility>

namespace kvm_bridge {

namespace {

struct Waiter {
  uint32_t events;
  napi_deferred deferred;
  Waiter* next;
};

int ToUv(uint32_t events) {
  return ((events & POLLIN) != 0 ? UV_READABLE : 0) | ((events & POLLOUT) != 0 ? UV_WRITABLE : 0);
}

uint32_t FromUv(int events) {
  return ((events & UV_READABLE) != 0 ? uint32_t{POLLIN} : 0) | ((events & UV_WRITABLE) != 0 ? uint32_t{POLLOUT} : 0);
}

void Resolve(napi_env env, napi_deferred deferred, int64_t result) {
  napi_value value;
  if (napi_create_int64(env, result, &value) == napi_ok) napi_resolve_deferred(env, deferred, value);
}

}  // namespace

struct Watch {
  // First, so that libuv's pointer is ours.
  uv_poll_t handle;
  Poller* poller;
  Waiter* waiters = nullptr;
  // What libuv was asked for; 0 when it is stopped, which doesn't keep the process alive.
  int active = 0;
  Watch* next = nullptr;

  int Wanted() const {
    int wanted = 0;
    for (const Waiter* waiter = waiters; waiter != nullptr; waiter = waiter->next) wanted |= ToUv(waiter->events);
    return wanted;
  }

  // Takes out those who wait for one of the events, in the order in which they came.
  Waiter* Take(uint32_t events) {
    Waiter* taken = nullptr;
    Waiter** end = &taken;
    for (Waiter** at = &waiters; *at != nullptr;) {
      Waiter* const waiter = *at;
      if ((waiter->events & events) == 0) {
        at = &waiter->next;
        continue;
      }
      *at = std::exchange(waiter->next, nullptr);
      *end = waiter;
      end = &waiter->next;
    }
    return taken;
  }
};

namespace {

constexpr uint32_t kAllEvents = UINT32_MAX;

void ResolveAll(napi_env env, Waiter* waiter, int64_t result, bool is_events) {
  while (waiter != nullptr) {
    Waiter* const next = waiter->next;
    const int64_t own = is_events ? result & int64_t{waiter->events | POLLERR | POLLHUP} : result;
    Resolve(env, waiter->deferred, own);
    delete waiter;
    waiter = next;
  }
}

}  // namespace

Poller::Poller(napi_env env) : env_(env) {
  napi_value name;
  napi_create_string_utf8(env, "kvm-bridge.poll", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, nullptr, name, &context_);
  napi_add_async_cleanup_hook(env, OnCleanup, this, nullptr);
}

int Poller::Make(int fd, Watch*& watch) {
  uv_loop_t* loop;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -ENOSYS;
  auto* made = new (std::nothrow) Watch();
  if (made == nullptr) return -ENOMEM;
  const int result = uv_poll_init(loop, &made->handle, fd);
  if (result != 0) {
    delete made;
    return result;
  }
  made->poller = this;
  made->next = first_;
  first_ = made;
  watch = made;
  return 0;
}

int Poller::Wait(int fd, Watch*& watch, uint32_t events, napi_deferred deferred) {
  if (watch == nullptr) {
    const int made = Make(fd, watch);
    if (made != 0) return made;
  }
  auto* waiter = new (std::nothrow) Waiter{events, deferred, nullptr};
  if (waiter == nullptr) return -ENOMEM;
  Waiter** end = &watch->waiters;
  while (*end != nullptr) end = &(*end)->next;
  *end = waiter;
  const int wanted = watch->Wanted();
  if (wanted == watch->active) return 0;
  const int started = uv_poll_start(&watch->handle, wanted, OnReady);
  if (started == 0) {
    watch->active = wanted;
    return 0;
  }
  *end = nullptr;
  delete waiter;
  return started;
}

void Poller::Stop(Watch& watch) {
  uv_poll_stop(&watch.handle);
  watch.active = 0;
}

void Poller::Settle(Watch& watch, int64_t result) {
  ResolveAll(env_, watch.Take(kAllEvents), result, false);
  if (watch.active != 0) Stop(watch);
}

void Poller::Forget(Watch*& watch, int64_t result) {
  if (watch == nullptr || has_ended_) return;
  Settle(*watch, result);
  uv_close(reinterpret_cast<uv_handle_t*>(&watch->handle), OnClosed);
  watch = nullptr;
}

void Poller::OnReady(uv_poll_t* handle, int status, int events) {
  auto& watch = *reinterpret_cast<Watch*>(handle);
  Poller& poller = *watch.poller;
  const napi_env env = poller.env_;
  // After an error libuv has stopped by itself. Whoever waits then finds out from the descriptor.
  if (status != 0) watch.active = 0;
  const uint32_t ready = status == 0 ? FromUv(events) : uint32_t{POLLERR};
  napi_handle_scope handles;
  if (napi_open_handle_scope(env, &handles) != napi_ok) return;
  napi_callback_scope callbacks;
  if (napi_open_callback_scope(env, nullptr, poller.context_, &callbacks) == napi_ok) {
    ResolveAll(env, watch.Take(status == 0 ? ready : kAllEvents), int64_t{ready}, true);
    // Those who waited go on here, and as a rule wait again: then nothing has to be said to the kernel.
    napi_close_callback_scope(env, callbacks);
  }
  napi_close_handle_scope(env, handles);
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(handle))) return;
  const int wanted = watch.Wanted();
  if (wanted == watch.active) return;
  if (wanted == 0) {
    poller.Stop(watch);
  } else if (uv_poll_start(handle, wanted, OnReady) == 0) {
    watch.active = wanted;
  }
}

void Poller::OnClosed(uv_handle_t* handle) {
  auto* watch = reinterpret_cast<Watch*>(handle);
  Poller& poller = *watch->poller;
  Watch** at = &poller.first_;
  while (*at != watch) at = &(*at)->next;
  *at = watch->next;
  delete watch;
  poller.EndIfUnused();
}

void Poller::End() {
  if (has_ended_) return;
  has_ended_ = true;
  for (Watch* watch = first_; watch != nullptr; watch = watch->next) {
    for (Waiter* waiter = watch->Take(kAllEvents); waiter != nullptr;) delete std::exchange(waiter, waiter->next);
    auto* handle = reinterpret_cast<uv_handle_t*>(&watch->handle);
    if (!uv_is_closing(handle)) uv_close(handle, OnClosed);
  }
}

// libuv must have let go of everything before the environment's loop is closed.
void Poller::OnCleanup(napi_async_cleanup_hook_handle hook, void* self) {
  auto* poller = static_cast<Poller*>(self);
  poller->ending_ = hook;
  poller->End();
  poller->EndIfUnused();
}

void Poller::EndIfUnused() {
  if (ending_ == nullptr || first_ != nullptr) return;
  napi_remove_async_cleanup_hook(std::exchange(ending_, nullptr));
}

}  // namespace kvm_bridge
