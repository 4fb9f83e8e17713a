// What lets an addon that was compiled with a newer C library load with glibc 2.28: only in the prebuilt addons.
// Functions whose version changed since are called by their older one; what is newer altogether has a stand-in.
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The first versions of the C library and of its timers for 64 bits.
#if defined(__x86_64__)
#define FIRST "GLIBC_2.2.5"
#define TIMERS "GLIBC_2.3.3"
#elif defined(__s390x__)
#define FIRST "GLIBC_2.2"
#define TIMERS "GLIBC_2.3.3"
#elif defined(__aarch64__) || (defined(__powerpc64__) && defined(__LITTLE_ENDIAN__))
#define FIRST "GLIBC_2.17"
#define TIMERS "GLIBC_2.17"
#elif defined(__riscv) && __riscv_xlen == 64
#define FIRST "GLIBC_2.27"
#define TIMERS "GLIBC_2.27"
#else
#error "no prebuilt addon is made for this architecture"
#endif

// Defined here, and hidden, the plain name serves our own code and the static C++ library alike.
#define OLDER(version, result, name, parameters, arguments)     \
  __asm__(".symver older_" #name "," #name "@" version);        \
  result older_##name parameters;                               \
  __attribute__((visibility("hidden"))) result name parameters { return older_##name arguments; }

extern "C" {

OLDER(FIRST, int, pthread_create,
      (pthread_t * thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument),
      (thread, attributes, start, argument))
OLDER(FIRST, int, pthread_detach, (pthread_t thread), (thread))
OLDER(FIRST, int, pthread_join, (pthread_t thread, void** result), (thread, result))
OLDER(FIRST, int, pthread_kill, (pthread_t thread, int signal), (thread, signal))
OLDER(FIRST, int, pthread_once, (pthread_once_t * once, void (*routine)()), (once, routine))
OLDER(FIRST, int, pthread_sigmask, (int how, const sigset_t* set, sigset_t* before), (how, set, before))
OLDER(FIRST, int, __pthread_key_create, (pthread_key_t * key, void (*destroy)(void*)), (key, destroy))
OLDER(TIMERS, int, timer_create, (clockid_t clock, sigevent* event, timer_t* timer), (clock, event, timer))
OLDER(TIMERS, int, timer_delete, (timer_t timer), (timer))
OLDER(TIMERS, int, timer_settime, (timer_t timer, int flags, const itimerspec* next, itimerspec* before),
      (timer, flags, next, before))

#pragma GCC visibility push(hidden)

/** 2.33: until then a macro around the system call. */
int fstat(int fd, struct stat* status) { return static_cast<int>(syscall(SYS_fstat, fd, status)); }

/** 2.30. The older one waits by the wall clock; whoever waits looks at the condition and the time again. */
int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  constexpr long kSecond = 1000000000;
  timespec now;
  timespec wall;
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &wall);
  wall.tv_sec += deadline->tv_sec - now.tv_sec;
  wall.tv_nsec += deadline->tv_nsec - now.tv_nsec;
  if (wall.tv_nsec < 0) {
    wall.tv_nsec += kSecond;
    wall.tv_sec--;
  } else if (wall.tv_nsec >= kSecond) {
    wall.tv_nsec -= kSecond;
    wall.tv_sec++;
  }
  return pthread_cond_timedwait(condition, mutex, &wall);
}

/** 2.32: whether atomic counts may be left out; a process with Node in it has threads. */
char __libc_single_threaded = 0;

/** 2.35: finds unwind tables. Nothing is thrown here (-fno-exceptions), so none are looked for. */
int _dl_find_object(void*, void*) { return -1; }

#pragma GCC visibility pop
}
