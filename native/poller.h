// Waiting for descriptors in the event loop of an environment's thread.
#ifndef KVM_BRIDGE_POLLER_H_
#define KVM_BRIDGE_POLLER_H_

#include <node_api.h>
#include <stdint.h>
#include <uv.h>

namespace kvm_bridge {

// A descriptor that is waited for. It lives until libuv has let go of it, which is later than the descriptor's end.
struct Watch;

class Poller {
 public:
  explicit Poller(napi_env env);
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // Makes the promise of `deferred` one of the bits of `events` (POLLIN, POLLOUT) that came true; see KvmCalls.poll. `watch` is
  // the descriptor's, made when it is first waited for. 0, or -errno when it can't be waited for.
  int Wait(int fd, Watch*& watch, uint32_t events, napi_deferred deferred);
  // All who wait for the descriptor get `result` now.
  void Settle(Watch& watch, int64_t result);
  // The same, and the watch goes. To be called before the descriptor is closed.
  void Forget(Watch*& watch, int64_t result);
  // The environment ends: nobody hears any more what the promises would have been. Does nothing the second time.
  void End();

 private:
  static void OnReady(uv_poll_t* handle, int status, int events);
  static void OnClosed(uv_handle_t* handle);
  static void OnCleanup(napi_async_cleanup_hook_handle hook, void* self);

  int Make(int fd, Watch*& watch);
  void Stop(Watch& watch);
  void EndIfUnused();

  napi_env env_;
  napi_async_context context_ = nullptr;
  // All that libuv still has.
  Watch* first_ = nullptr;
  bool has_ended_ = false;
  napi_async_cleanup_hook_handle ending_ = nullptr;
};

}  // namespace kvm_bridge

#endif
