// The few functions of the C++ library that would bring its exceptions along, with thread-local storage, unwinder and
// messages: only in the prebuilt addons. Nothing is thrown here (-fno-exceptions). Without those they need nothing of a
// C library that glibc and musl don't both have.
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/auxv.h>

#include <condition_variable>
#include <mutex>
#include <new>

#pragma GCC visibility push(hidden)

void* operator new(size_t size, const std::nothrow_t&) noexcept { return malloc(size == 0 ? 1 : size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return malloc(size == 0 ? 1 : size); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory, size_t) noexcept { free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { free(memory); }

namespace std {

const nothrow_t nothrow{};

/** A mutex that cannot be locked: a fault of ours. */
void __throw_system_error(int) { abort(); }

condition_variable::condition_variable() noexcept {}
condition_variable::~condition_variable() noexcept {}
void condition_variable::wait(unique_lock<mutex>& lock) { _M_cond.wait(*lock.mutex()); }
void condition_variable::notify_all() noexcept { _M_cond.notify_all(); }

}  // namespace std

extern "C" {

[[noreturn]] void __cxa_pure_virtual() { abort(); }

// Statics within functions: the first of eight bytes says that one is made, the second half that a thread makes it: a word,
// since riscv64 has no exchange of bytes but in a library of its own.
int __cxa_guard_acquire(unsigned char* guard) {
  while (__atomic_load_n(guard, __ATOMIC_ACQUIRE) == 0) {
    if (__atomic_exchange_n(reinterpret_cast<unsigned*>(guard) + 1, 1u, __ATOMIC_ACQ_REL) == 0) return 1;
    sched_yield();
  }
  return 0;
}

void __cxa_guard_release(unsigned char* guard) { __atomic_store_n(guard, 1, __ATOMIC_RELEASE); }

#if defined(__aarch64__)
/** Under this name only glibc has it, and libgcc asks it whether the processor has atomic instructions. */
unsigned long __getauxval(unsigned long type) { return getauxval(type); }
#endif
}

#pragma GCC visibility pop
