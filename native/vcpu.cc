#include "vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>

#include "guarded_memory.h"
#include "kvm_abi.h"

namespace kvm_bridge {

// A vCPU driven by a worker can be kicked from any thread, so that this is one list for the process.
class ProcessVcpus {
 public:
  void Add(Vcpu& vcpu) {
    std::lock_guard<std::mutex> lock(mutex_);
    vcpu.next_open_ = first_;
    if (first_ != nullptr) first_->previous_open_ = &vcpu;
    first_ = &vcpu;
  }

  void Remove(Vcpu& vcpu) {
    std::lock_guard<std::mutex> lock(mutex_);
    (vcpu.previous_open_ != nullptr ? vcpu.previous_open_->next_open_ : first_) = vcpu.next_open_;
    if (vcpu.next_open_ != nullptr) vcpu.next_open_->previous_open_ = vcpu.previous_open_;
  }

  Ref<Vcpu> Find(int fd) {
    std::lock_guard<std::mutex> lock(mutex_);
    Vcpu* vcpu = first_;
    while (vcpu != nullptr && vcpu->fd_ != fd) vcpu = vcpu->next_open_;
    return Ref<Vcpu>(vcpu);
  }

 private:
  std::mutex mutex_;
  // Whoever owns one that is open removes it before.
  Vcpu* first_ = nullptr;
};

namespace {

// A guest leaves KVM_RUN in microseconds once signalled. Only one whose memory is served by this very thread
// (userfaultfd, FUSE) may not: then its own thread closes the descriptor later.
constexpr auto kPatience = std::chrono::seconds(1);

// 0, 1 and 2 mean something to whoever is started.
constexpr int kFirstOwn = 3;

ProcessVcpus& AllVcpus() {
  // Never destroyed: vCPU threads may still run while the process exits.
  alignas(ProcessVcpus) static unsigned char memory[sizeof(ProcessVcpus)];
  static auto* all = new (memory) ProcessVcpus;
  return *all;
}

#if defined(__powerpc64__)
// KVM_RUN was seen to come back with other values in these registers, which the ABI says a call preserves.
#define KVM_BRIDGE_GUEST_CLOBBERS                                                                                      \
  "fr14", "fr15", "fr16", "fr17", "fr18", "fr19", "fr20", "fr21", "fr22", "fr23", "fr24", "fr25", "fr26", "fr27",    \
      "fr28", "fr29", "fr30", "fr31", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",   \
      "v31"
#endif

// The only place where KVM_RUN is issued.
__attribute__((noinline)) int EnterGuest(int fd) {
  const int result = static_cast<int>(Ioctl(fd, KVM_RUN));
#if defined(__powerpc64__)
  asm volatile("" : : : KVM_BRIDGE_GUEST_CLOBBERS);
#endif
  return result;
}

// Whether the worker of this environment is being terminated. Node-API says so to functions that could enter JavaScript.
// This one never does: entering it would use up the termination, and the worker's code would go on behind our call.
bool IsTerminating(napi_env env) {
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return true;
  napi_value value;
  const bool fails = napi_create_int32(env, 0, &value) != napi_ok || napi_coerce_to_bool(env, value, &value) != napi_ok;
  napi_close_handle_scope(env, scope);
  return fails;
}

}  // namespace

Ref<Vcpu> Vcpu::Adopt(int fd, const Ref<VmSlots>& slots, int* error) {
  InterruptSignal();
  auto vcpu = Ref<Vcpu>::Make(fd, slots);
  *error = vcpu ? vcpu->MapRunPage() : -ENOMEM;
  if (*error != 0) {
    close(fd);
    return Ref<Vcpu>();
  }
  AllVcpus().Add(*vcpu);
  return vcpu;
}

Ref<Vcpu> Vcpu::FindInProcess(int fd) { return AllVcpus().Find(fd); }

int Vcpu::MapRunPage() {
  void* page = mmap(nullptr, PageSize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (page == MAP_FAILED) return -errno;
  run_page_ = static_cast<uint8_t*>(page);
  return 0;
}

int64_t Vcpu::Lend() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (is_stopping_) return -EBADF;
  if (user_ != fd_ || is_busy_ || is_inside_) return -EBUSY;
  const int duplicate = fcntl(fd_, F_DUPFD_CLOEXEC, kFirstOwn);
  if (duplicate < 0) return -errno;
  user_ = duplicate;
  return duplicate;
}

Vcpu::Run Vcpu::RunOnce(int fd, const RunMask& mask) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    // Since the caller looked it may have been lent, or closed by whoever made it.
    if (user_ != fd) return {-EBUSY, true};
    if (is_stopping_ && fd != fd_) return {-EBADF, true};
    is_inside_ = true;
    inside_ = pthread_self();
  }
  int result = mask_ == mask.id() ? 0 : mask.Install(fd_);
  if (result == 0) {
    mask_ = mask.id();
    result = EnterGuest(fd_);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  is_inside_ = false;
  uint8_t& immediate_exit = run_page_[offsetof(kvm_run, immediate_exit)];
  const bool is_exit_requested = is_kicked_ || immediate_exit != 0;
  if (result == -EINTR && is_kicked_) {
    is_kicked_ = false;
    immediate_exit = 0;
  }
  return {result, is_exit_requested};
}

int Vcpu::RunHere(int fd, napi_env env, RunTimer& timer, double timeout_ms) {
  const int entered = timer.Enter(timeout_ms);
  if (entered != 0) return entered;
  if (slots_) slots_->Enter();
  int result;
  for (;;) {
    const Run run = RunOnce(fd, timer.mask());
    result = run.result;
    if (result == -EINTR || run.is_exit_requested) timer.TakeSignals();
    if (result != -EINTR || run.is_exit_requested || timer.IsTimedOut()) break;
    // A signal of somebody else's is for the caller to see, as it would be in C.
    if (!timer.TakeTick()) break;
    if (IsTerminating(env)) {
      timer.Stop();
      break;
    }
  }
  if (slots_) slots_->Leave();
  timer.Leave();
  return result;
}

int Vcpu::RunOnOwnThread(int fd, napi_threadsafe_function results, napi_deferred deferred) {
  const int interrupt = InterruptSignal();
  // Without it nothing could get the guest out of there again.
  if (interrupt == 0) return -EAGAIN;
  std::lock_guard<std::mutex> lock(mutex_);
  if (user_ != fd) return -EBUSY;
  if (is_stopping_) return -EBADF;
  if (!has_thread_) {
    // The process's signals are for its other threads; only ours may interrupt a guest.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    sigdelset(&all, interrupt);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_keeps_ = Ref<Vcpu>(this);
    const int failed = pthread_create(&thread_, nullptr, ThreadMain, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (failed != 0) {
      thread_keeps_ = Ref<Vcpu>();
      return -failed;
    }
    has_thread_ = true;
  }
  results_ = results;
  run_result_.deferred = deferred;
  if (slots_) slots_->Enter();
  is_requested_ = true;
  requested_by_ = fd;
  is_busy_ = true;
  changed_.notify_all();
  return 0;
}

void* Vcpu::ThreadMain(void* self) {
  auto* vcpu = static_cast<Vcpu*>(self);
  vcpu->Serve();
  // May be the last one, after which there is no vCPU.
  const Ref<Vcpu> kept = std::move(vcpu->thread_keeps_);
  return nullptr;
}

void Vcpu::Serve() {
  const RunMask mask = RunMask::OfThisThread();
  KickTimer kick_timer;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return is_requested_ || (is_stopping_ && user_ == fd_); });
    if (!is_requested_) break;
    const int fd = requested_by_;
    is_requested_ = false;
    is_serving_ = true;
    // Without it a guest might never be got out again.
    const int failed = kick_timer.Create();
    kick_timer_ = failed == 0 ? &kick_timer : nullptr;
    lock.unlock();
    const int value = failed != 0 ? failed : RunOnce(fd, mask).result;
    if (slots_) slots_->Leave();
    lock.lock();
    is_serving_ = false;
    is_stuck_ = false;
    SendResult(value);
    changed_.notify_all();
  }
  kick_timer_ = nullptr;
  is_thread_done_ = true;
  if (closes_itself_) CloseLocked();
  changed_.notify_all();
}

void Vcpu::SendResult(int value) {
  if (results_ != nullptr) {
    run_result_.value = value;
    run_result_.vcpu = Ref<Vcpu>(this);
    if (napi_call_threadsafe_function(results_, &run_result_, napi_tsfn_nonblocking) == napi_ok) return;
    run_result_.vcpu = Ref<Vcpu>();
  }
  // Nobody waits for it any more.
  is_busy_ = false;
}

void Vcpu::KickLocked() {
  is_kicked_ = true;
  // Read by the kernel on its way into the guest, so that a kick between two runs isn't lost.
  __atomic_store_n(&run_page_[offsetof(kvm_run, immediate_exit)], 1, __ATOMIC_SEQ_CST);
  // Where no signal can be queued, the timer's was set aside before; on other threads the next tick gets the guest out.
  if (is_inside_ && pthread_kill(inside_, InterruptSignal()) == EAGAIN && kick_timer_ != nullptr) kick_timer_->Send();
}

int64_t Vcpu::Kick() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (run_page_ == nullptr || is_stopping_) return -EBADF;
  KickLocked();
  return 0;
}

bool Vcpu::GetOut(std::unique_lock<std::mutex>& lock) {
  const auto is_out = [this] { return !is_requested_ && !is_serving_; };
  if (is_out()) return true;
  KickLocked();
  is_stuck_ = !changed_.wait_for(lock, kPatience, is_out);
  return !is_stuck_;
}

void Vcpu::ForgetKick() {
  if (is_kicked_) run_page_[offsetof(kvm_run, immediate_exit)] = 0;
  is_kicked_ = false;
}

int64_t Vcpu::Stop(int fd) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (run_page_ == nullptr || is_stopping_) return -EBADF;
  if (user_ != fd) return -EBUSY;
  if ((is_requested_ || is_serving_) && !GetOut(lock)) return -EBUSY;
  // It may have left by itself just before.
  ForgetKick();
  return 0;
}

void Vcpu::Disconnect(napi_threadsafe_function results) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (results_ == results) results_ = nullptr;
}

int64_t Vcpu::Close(int fd) {
  if (fd != fd_) return GiveBack(fd);
  AllVcpus().Remove(*this);
  std::unique_lock<std::mutex> lock(mutex_);
  is_stopping_ = true;
  if (user_ == fd_) return CloseLast(lock);
  KickLocked();
  return 0;
}

int64_t Vcpu::GiveBack(int fd) {
  std::unique_lock<std::mutex> lock(mutex_);
  const bool is_out = GetOut(lock);
  const int64_t closed = close(fd) == 0 ? 0 : -errno;
  user_ = fd_;
  if (is_stopping_) return CloseLast(lock);
  // One that found no run was for this user.
  if (is_out) ForgetKick();
  return closed;
}

int64_t Vcpu::CloseLast(std::unique_lock<std::mutex>& lock) {
  if (!has_thread_) return CloseLocked();
  KickLocked();
  changed_.notify_all();
  const auto patience = is_stuck_ ? std::chrono::seconds(0) : kPatience;
  if (!changed_.wait_for(lock, patience, [this] { return is_thread_done_; })) {
    closes_itself_ = true;
    pthread_detach(thread_);
    return 0;
  }
  const int64_t closed = CloseLocked();
  lock.unlock();
  pthread_join(thread_, nullptr);
  return closed;
}

bool Vcpu::is_unfinished() {
  std::lock_guard<std::mutex> lock(mutex_);
  return is_requested_ || is_serving_;
}

bool Vcpu::IsUnfinished(int fd) {
  std::lock_guard<std::mutex> lock(mutex_);
  return (is_requested_ || is_serving_) && requested_by_ == fd;
}

int64_t Vcpu::CloseLocked() {
  munmap(run_page_, PageSize());
  run_page_ = nullptr;
  return close(fd_) == 0 ? 0 : -errno;
}

}  // namespace kvm_bridge
