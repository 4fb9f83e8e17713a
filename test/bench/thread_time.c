#include <time.h>

// Nanoseconds of processor time that this thread has had: what others did to the machine is not in it.
double bench_thread_time(void) {
  struct timespec at;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
  return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}
