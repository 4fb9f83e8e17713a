// A vhost-user front end for a disk, which connects, sets everything up, reads and takes it back, over and over, until it is killed.
// Every message goes in two pieces, so that it can die in the middle of one.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/socket.h>

static unsigned seed;

static ssize_t in_pieces(int fd, const struct msghdr *message, int flags) {
  struct msghdr first = *message;
  struct iovec piece = message->msg_iov[0];
  const size_t whole = piece.iov_len;
  piece.iov_len = 1 + (size_t)rand_r(&seed) % whole;
  first.msg_iov = &piece;
  const size_t sent = piece.iov_len;
  if (sendmsg(fd, &first, flags) != (ssize_t)sent) return -1;
  if (sent == whole) return (ssize_t)whole;
  const char *rest = (const char *)message->msg_iov[0].iov_base + sent;
  return send(fd, rest, whole - sent, flags) == (ssize_t)(whole - sent) ? (ssize_t)whole : -1;
}

#define sendmsg(fd, message, flags) in_pieces(fd, message, flags)
#include "../bench/vhost_user.c"

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  seed = (unsigned)atoi(argv[2]);
  for (;;) {
    const int fd = bench_vhost_open(argv[1]);
    if (fd < 0) return 1;
    if (bench_vhost_read(1 + (uint32_t)rand_r(&seed) % 32, rand_r(&seed) % 200) != 0) return 1;
    const uint32_t queue[2] = {0, 0};
    // GET_VRING_BASE takes the queue back.
    if (rand_r(&seed) % 2 == 0 && Ask(fd, 11, queue, 8) != 0) return 1;
    close(fd);
    close(kick_fd);
    close(call_fd);
    munmap(memory, kMemory);
    avail_index = 0;
  }
}
