// A vCPU: its kvm_run page, the thread inside KVM_RUN, and how to get it out of there.
#ifndef KVM_BRIDGE_VCPU_H_
#define KVM_BRIDGE_VCPU_H_

#include <node_api.h>
#include <pthread.h>
#include <stdint.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "counted.h"
#include "interrupt.h"
#include "slots.h"

namespace kvm_bridge {

class Vcpu;

// What a run on a vCPU's own thread sends back. A vCPU has one at a time.
struct RunResult {
  Ref<Vcpu> vcpu;
  napi_deferred deferred = nullptr;
  int value = 0;
};

class Vcpu : public Counted {
 public:
  // Takes over `fd` in any case. `error` is 0, or -errno when there is no kvm_run page or no memory.
  static Ref<Vcpu> Adopt(int fd, const Ref<VmSlots>& slots, int* error);
  // The open vCPU of this descriptor anywhere in the process, or nullptr.
  static Ref<Vcpu> FindInProcess(int fd);

  Vcpu(int fd, const Ref<VmSlots>& slots) : fd_(fd), user_(fd), slots_(slots) {}

  // A duplicate of the descriptor, for another environment: until it is closed it alone may be used for anything but kicks.
  // -EBUSY while there is one already, or a run is under way.
  int64_t Lend();
  // KVM_RUN on this thread, for as long as `timeout_ms` (0: without end) and `env` allow.
  int RunHere(int fd, napi_env env, RunTimer& timer, double timeout_ms);
  // KVM_RUN on the vCPU's own thread; `completion` then comes through `results`. 0, or -errno when there is no thread.
  int RunOnOwnThread(int fd, napi_threadsafe_function results, napi_deferred deferred);
  // Whether this descriptor has to wait: for another environment's, or for a run on the vCPU's own thread whose end JavaScript
  // has not seen yet.
  bool IsBusy(int fd) const { return user_ != fd || is_busy_; }
  void set_idle() { is_busy_ = false; }
  const Ref<VmSlots>& slots() const { return slots_; }
  int64_t Kick();
  // Ends a run on the vCPU's own thread and waits for that. 0, or -EBUSY when the guest does not leave in time.
  int64_t Stop(int fd);
  // Interrupts a run, waits for its end, and closes the descriptor. A guest that does not leave in time is left to its
  // thread, which closes the descriptor later; `is_unfinished` says so. The vCPU ends with its last descriptor; with its first
  // it can't be run any more.
  int64_t Close(int fd);
  bool is_unfinished();
  // Likewise, of a run that this descriptor began.
  bool IsUnfinished(int fd);
  // No result is sent there any more: the environment that waits for it ends.
  void Disconnect(napi_threadsafe_function results);

  // The next vCPU that its environment has closed and that is unfinished. Used by the thread of the environment only.
  Ref<Vcpu> next_unfinished;

 private:
  struct Run {
    int result;
    // Somebody wanted the vCPU out of KVM_RUN: a kick, or the caller through kvm_run.immediate_exit.
    bool is_exit_requested;
  };

  friend class ProcessVcpus;
  static void* ThreadMain(void* self);
  int MapRunPage();
  Run RunOnce(int fd, const RunMask& mask);
  void Serve();
  void SendResult(int value);
  void KickLocked();
  // Whether no run is under way on the own thread, also after a kick and some patience.
  bool GetOut(std::unique_lock<std::mutex>& lock);
  void ForgetKick();
  int64_t GiveBack(int fd);
  int64_t CloseLast(std::unique_lock<std::mutex>& lock);
  int64_t CloseLocked();

  // What it was made with. Open until the last of its descriptors is closed.
  const int fd_;
  // The descriptor that may be used: this, or a duplicate.
  std::atomic<int> user_;
  // What the guest writes to, be it in a run that outlives all descriptors.
  Ref<VmSlots> slots_;
  // The open vCPUs of the process, in no order; guarded by the list's mutex.
  Vcpu* next_open_ = nullptr;
  Vcpu* previous_open_ = nullptr;
  std::atomic<bool> is_busy_{false};
  // Whose signal mask KVM has. Used by the thread inside alone.
  uint64_t mask_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  // All below is guarded by the mutex.
  uint8_t* run_page_ = nullptr;
  bool is_inside_ = false;
  pthread_t inside_ = {};
  bool is_kicked_ = false;
  // Its own thread's, while that serves runs.
  KickTimer* kick_timer_ = nullptr;
  bool has_thread_ = false;
  pthread_t thread_ = {};
  // Lets the vCPU live for as long as its thread.
  Ref<Vcpu> thread_keeps_;
  bool is_requested_ = false;
  bool is_serving_ = false;
  // It did not leave in time once: nobody waits for it again.
  bool is_stuck_ = false;
  int requested_by_ = -1;
  bool is_stopping_ = false;
  bool is_thread_done_ = false;
  bool closes_itself_ = false;
  napi_threadsafe_function results_ = nullptr;
  RunResult run_result_;
};

}  // namespace kvm_bridge

#endif
