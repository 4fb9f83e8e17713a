// Two processes that wake each other through a pair of non-blocking eventfds, as programs in C do.
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

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

// `n` round trips to a process that answers each ring of `there` by one of `back`.
int bench_doorbell(int there, int back, int64_t n) {
  const pid_t peer = fork();
  if (peer < 0) return -1;
  if (peer == 0) {
    while (take(there) == 0 && ring(back) == 0) {
    }
    _exit(1);
  }
  int result = 0;
  for (int64_t i = 0; i < n && result == 0; i++) result = ring(there) != 0 || take(back) != 0 ? -1 : 0;
  kill(peer, SIGKILL);
  while (waitpid(peer, NULL, 0) < 0) {
  }
  return result;
}
