// A vCPU: its kvm_run page, the thread inside KVM_RUN, and how to get it out of there.
#ifndef KVM_BRIDGE_VCPU_H_
#define KVM_BRIDGE_VCPU_H_

#include <node_api.h>
#include <pthread.h>
#include <stdint.h>

#include <condition_variable>
#include <memory>
#include <mutex>

#include "interrupt.h"

namespace kvm_bridge {

class Environment;

class Vcpu : public std::enable_shared_from_this<Vcpu> {
 public:
  // Takes over `fd` in any case. `error` is 0, or -errno when there is no kvm_run page.
  static std::shared_ptr<Vcpu> Adopt(int fd, int* error);
  // The open vCPU of this descriptor anywhere in the process, or nullptr.
  static std::shared_ptr<Vcpu> FindInProcess(int fd);

  explicit Vcpu(int fd) : fd_(fd) {}
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  // KVM_RUN on this thread, for as long as `timeout_ms` (0: without end) and `env` allow.
  int RunHere(napi_env env, RunTimer& timer, double timeout_ms);
  // KVM_RUN on the vCPU's own thread; `completion` then comes through `results`. 0, or -errno when there is no thread.
  int RunOnOwnThread(napi_threadsafe_function results, napi_deferred deferred);
  // Whether a run on the vCPU's own thread is under way, as JavaScript sees it.
  bool is_busy() const { return is_busy_; }
  void set_idle() { is_busy_ = false; }
  int64_t Kick();
  // Interrupts a run, waits for its end, and closes the descriptor; no result is sent after `Disconnect`.
  int64_t Close();
  void Disconnect();

 private:
  struct Run {
    int result;
    // Somebody wanted the vCPU out of KVM_RUN: a kick, or the caller through kvm_run.immediate_exit.
    bool is_exit_requested;
  };

  static void* ThreadMain(void* self);
  int MapRunPage();
  Run RunOnce();
  void Serve();
  void KickLocked();
  int64_t CloseLocked();

  int fd_;
  // Used by the thread of the environment only.
  bool is_busy_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  // All below is guarded by the mutex.
  uint8_t* run_page_ = nullptr;
  bool is_inside_ = false;
  pthread_t inside_ = {};
  bool is_kicked_ = false;
  bool has_thread_ = false;
  pthread_t thread_ = {};
  bool is_requested_ = false;
  bool is_stopping_ = false;
  bool is_thread_done_ = false;
  bool closes_itself_ = false;
  napi_threadsafe_function results_ = nullptr;
  napi_deferred deferred_ = nullptr;
};

// What a run on a vCPU's own thread sends back.
struct RunResult {
  std::shared_ptr<Vcpu> vcpu;
  napi_deferred deferred;
  int value;
};

}  // namespace kvm_bridge

#endif
