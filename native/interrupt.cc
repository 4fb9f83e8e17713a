#include "interrupt.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "kvm_abi.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace kvm_bridge {
namespace {

// A worker that is being terminated waits no longer than this.
constexpr double kTickMs = 100;
// How soon the signal comes again once a timeout has passed.
constexpr double kInsistMs = 5;
// Longer timeouts are as good as none.
constexpr double kLongestMs = 1e12;

double NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

timespec ToTimespec(double ms) {
  timespec time;
  time.tv_sec = static_cast<time_t>(ms / 1e3);
  time.tv_nsec = static_cast<long>((ms - static_cast<double>(time.tv_sec) * 1e3) * 1e6);
  return time;
}

// A timer that sends the signal to this thread, with a word of its owner's. 0, or -errno.
int CreateTimer(timer_t* timer, void* owner) {
  const int signal = InterruptSignal();
  if (signal == 0) return -EAGAIN;
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event.sigev_value.sival_ptr = owner;
  event.sigev_notify_thread_id = static_cast<pid_t>(syscall(SYS_gettid));
  return timer_create(CLOCK_MONOTONIC, &event, timer) == 0 ? 0 : -errno;
}

sigset_t InterruptOnly() {
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, InterruptSignal());
  return only;
}

}  // namespace

// Kicks on a vCPU's own thread end here; on others the signal is blocked, and comes here only if somebody lets it through.
void OnInterrupt(int, siginfo_t* info, void*) {
  auto* timer = info->si_code == SI_TIMER ? static_cast<RunTimer*>(info->si_value.sival_ptr) : nullptr;
  if (timer != nullptr) timer->has_ticked_ = 1;
}

namespace {

int InstallHandler() {
  for (int signal = SIGRTMIN + 3; signal <= SIGRTMAX; signal++) {
    struct sigaction present;
    if (sigaction(signal, nullptr, &present) != 0) continue;
    if ((present.sa_flags & SA_SIGINFO) != 0 || present.sa_handler != SIG_DFL) continue;
    struct sigaction ours = {};
    ours.sa_sigaction = OnInterrupt;
    // KVM_RUN ends all the same.
    ours.sa_flags = SA_SIGINFO | SA_RESTART;
    sigfillset(&ours.sa_mask);
    if (sigaction(signal, &ours, nullptr) == 0) return signal;
  }
  return 0;
}

}  // namespace

int InterruptSignal() {
  static const int signal = InstallHandler();
  return signal;
}

RunMask RunMask::OfThisThread() {
  static std::atomic<uint64_t> last{0};
  sigset_t signals;
  pthread_sigmask(SIG_BLOCK, nullptr, &signals);
  sigdelset(&signals, InterruptSignal());
  RunMask mask;
  mask.id_ = ++last;
  memcpy(&mask.signals_, &signals, sizeof mask.signals_);
  return mask;
}

int RunMask::Install(int vcpu) const {
  // struct kvm_signal_mask, with the kernel's sigset_t.
  struct {
    uint32_t length;
    uint8_t signals[sizeof signals_];
  } argument = {sizeof signals_, {}};
  memcpy(argument.signals, &signals_, sizeof signals_);
  return static_cast<int>(Ioctl(vcpu, kSetSignalMask, &argument));
}

RunTimer::~RunTimer() {
  if (!is_created_) return;
  timer_delete(timer_);
  // One that waits would lead to this timer.
  TakeSignals();
}

int RunTimer::Create() {
  const int failed = CreateTimer(&timer_, this);
  if (failed != 0) return failed;
  is_created_ = true;
  // From here on it gets through to this thread in runs only, so that nothing of others is interrupted.
  const sigset_t only = InterruptOnly();
  pthread_sigmask(SIG_BLOCK, &only, nullptr);
  mask_ = RunMask::OfThisThread();
  return 0;
}

void RunTimer::Arm(double first_ms, double every_ms) {
  itimerspec times;
  times.it_value = ToTimespec(std::max(first_ms, 0.001));
  times.it_interval = ToTimespec(every_ms);
  is_armed_ = true;
  timer_settime(timer_, 0, &times, nullptr);
}

int RunTimer::Enter(double timeout_ms) {
  if (is_stopped_) return -EINTR;
  if (!is_created_) {
    const int created = Create();
    if (created != 0) return created;
  }
  has_ticked_ = 0;
  const bool is_limited = timeout_ms > 0 && timeout_ms < kLongestMs;
  deadline_ms_ = is_limited ? NowMs() + timeout_ms : 0;
  if (is_limited && timeout_ms < kTickMs) {
    Arm(timeout_ms, kInsistMs);
  } else if (!is_armed_) {
    Arm(kTickMs, kTickMs);
  }
  return 0;
}

void RunTimer::Leave() {
  // A timer set for a timeout ticks faster than the next run should have to bear.
  if (deadline_ms_ != 0) Arm(kTickMs, kTickMs);
}

void RunTimer::TakeSignals() {
  const sigset_t only = InterruptOnly();
  const timespec at_once = {};
  siginfo_t info;
  int taken;
  while ((taken = sigtimedwait(&only, &info, &at_once)) > 0 || errno == EINTR) {
    if (taken > 0 && info.si_code == SI_TIMER) has_ticked_ = 1;
  }
}

bool RunTimer::IsTimedOut() const { return deadline_ms_ != 0 && NowMs() >= deadline_ms_; }

bool RunTimer::TakeTick() {
  const bool had_ticked = has_ticked_ != 0;
  has_ticked_ = 0;
  if (had_ticked && deadline_ms_ != 0) {
    const double left = deadline_ms_ - NowMs();
    if (left < kTickMs) Arm(left, kInsistMs);
  }
  return had_ticked;
}

KickTimer::~KickTimer() {
  if (is_created_) timer_delete(timer_);
}

int KickTimer::Create() {
  if (is_created_) return 0;
  const int failed = CreateTimer(&timer_, nullptr);
  is_created_ = failed == 0;
  return failed;
}

void KickTimer::Send() {
  itimerspec times = {};
  times.it_value.tv_nsec = 1;
  timer_settime(timer_, 0, &times, nullptr);
}

}  // namespace kvm_bridge
