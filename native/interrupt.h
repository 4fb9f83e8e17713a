// Getting a thread out of KVM_RUN: the signal that does it, and the timer that sends it.
#ifndef KVM_BRIDGE_INTERRUPT_H_
#define KVM_BRIDGE_INTERRUPT_H_

#include <signal.h>
#include <stdint.h>
#include <time.h>

namespace kvm_bridge {

// The process's signal for this, a realtime one that nobody else had taken; its handler is installed by the first call.
// 0 when all realtime signals have handlers already.
int InterruptSignal();

// What a thread blocks while it is inside KVM_RUN: what it blocks anyway, without the signal that ends runs. KVM changes the mask
// on its way in and back, which takes no call of its own; a signal that got the thread out waits until it is taken.
class RunMask {
 public:
  static RunMask OfThisThread();

  // No other has it; 0 is none.
  uint64_t id() const { return id_; }
  // KVM_SET_SIGNAL_MASK: 0, or -errno.
  int Install(int vcpu) const;

 private:
  uint64_t id_ = 0;
  // The kernel's sigset_t.
  uint64_t signals_ = 0;
};

// Interrupts KVM_RUN on the thread that made it, so that a run ends in time and a terminated worker gets out.
// The signal comes again and again: one that arrives just before the ioctl is entered would be lost otherwise.
class RunTimer {
 public:
  RunTimer() = default;
  ~RunTimer();
  RunTimer(const RunTimer&) = delete;
  RunTimer& operator=(const RunTimer&) = delete;

  // Before and after KVM_RUN. `timeout_ms` 0: ticks only. 0, or -errno when there is no timer or signal to be had.
  int Enter(double timeout_ms);
  void Leave();
  const RunMask& mask() const { return mask_; }

  // From now on `Enter` gives -EINTR. V8 looks for a termination now and then only: a loop around KVM_RUN is to get there fast.
  void Stop() { is_stopped_ = true; }

  // What got a run out, or came too late for that, isn't to meet the next one.
  void TakeSignals();
  // After a run was interrupted.
  bool IsTimedOut() const;
  // Whether it was this timer's signal; asking takes the answer back.
  bool TakeTick();

 private:
  friend void OnInterrupt(int, siginfo_t*, void*);

  int Create();
  void Arm(double first_ms, double every_ms);

  timer_t timer_ = nullptr;
  bool is_created_ = false;
  bool is_stopped_ = false;
  bool is_armed_ = false;
  double deadline_ms_ = 0;
  RunMask mask_;
  // The signal handler's, should it come to that.
  volatile sig_atomic_t has_ticked_ = 0;
};

// Sends the signal to the thread that made it, also where no more can be queued (RLIMIT_SIGPENDING): a timer's is set aside for it.
class KickTimer {
 public:
  KickTimer() = default;
  ~KickTimer();
  KickTimer(const KickTimer&) = delete;
  KickTimer& operator=(const KickTimer&) = delete;

  // Does nothing the second time. 0, or -errno.
  int Create();
  void Send();

 private:
  timer_t timer_ = nullptr;
  bool is_created_ = false;
};

}  // namespace kvm_bridge

#endif
