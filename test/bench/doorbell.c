// Two processes that wake each other through a pair of non-blocking eventfds, as programs in C do.
#define _GNU_SOURCE
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t peer;
static cpu_set_t before;

static int take(int fd) {
  uint64_t count;
  while (read(fd, &count, sizeof count) != sizeof count) {
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, -1) < 0) return -1;
  }
  return 0;
}

static int ring(int fd) {
  const uint64_t one = 1;
  return write(fd, &one, sizeof one) == sizeof one ? 0 : -1;
}

// Keeps this thread, and the processes that it starts, on the processor where it is, or lets it go where it could before. What a
// processor takes to wake another one is the machine's, and many times what is measured.
int bench_one_processor(int stay) {
  if (!stay) return sched_setaffinity(0, sizeof before, &before);
  const int processor = sched_getcpu();
  if (processor < 0 || sched_getaffinity(0, sizeof before, &before) != 0) return -1;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  return sched_setaffinity(0, sizeof one, &one);
}

// Starts a process that answers each ring of `there` by one of `back`.
int bench_doorbell_start(int there, int back) {
  peer = fork();
  if (peer != 0) return peer < 0 ? -1 : 0;
  while (take(there) == 0 && ring(back) == 0) {
  }
  _exit(1);
}

int bench_doorbell_end(void) {
  kill(peer, SIGKILL);
  while (waitpid(peer, NULL, 0) < 0) {
  }
  return 0;
}

// `n` round trips to the process that was started.
int bench_doorbell(int there, int back, int64_t n) {
  int result = 0;
  for (int64_t i = 0; i < n && result == 0; i++) result = ring(there) != 0 || take(back) != 0 ? -1 : 0;
  return result;
}
