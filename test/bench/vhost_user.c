// A vhost-user front end for a disk, as small as it can be: memory, one queue, reads of one sector.
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { kMemory = 1 << 20, kQueue = 128, kAvail = 0x1000, kUsed = 0x2000, kHeaders = 0x4000, kStatuses = 0x5000, kData = 0x10000 };

static uint8_t* memory;
static int kick_fd, call_fd;
static uint16_t avail_index;

static int Send(int fd, uint32_t request, const void* payload, uint32_t size, int passed) {
  uint8_t bytes[128];
  const uint32_t header[3] = {request, 1, size};
  memcpy(bytes, header, sizeof header);
  if (size > 0) memcpy(bytes + sizeof header, payload, size);
  struct iovec data = {bytes, sizeof header + size};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (passed >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &passed, sizeof(int));
  }
  return sendmsg(fd, &message, 0) == (ssize_t)data.iov_len ? 0 : -1;
}

static int Ask(int fd, uint32_t request, const void* payload, uint32_t size) {
  uint8_t reply[20];
  if (Send(fd, request, payload, size, -1) != 0) return -1;
  return recv(fd, reply, sizeof reply, MSG_WAITALL) == sizeof reply ? 0 : -1;
}

// Connects to a back end and gives it memory and queue 0: the connection.
int bench_vhost_open(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -1;
  strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) return -1;
  const int memfd = memfd_create("bench", MFD_CLOEXEC);
  if (memfd < 0 || ftruncate(memfd, kMemory) != 0) return -1;
  memory = mmap(NULL, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  if (memory == MAP_FAILED) return -1;
  kick_fd = eventfd(0, EFD_CLOEXEC);
  call_fd = eventfd(0, EFD_CLOEXEC);
  const uint64_t user = (uintptr_t)memory, features = UINT64_C(1) << 32, zero = 0;
  const uint64_t table[5] = {1, 0, kMemory, user, 0};
  const uint32_t size[2] = {0, kQueue}, base[2] = {0, 0};
  const uint64_t rings[5] = {0, user, user + kUsed, user + kAvail, kUsed};
  if (Send(fd, 3, NULL, 0, -1) != 0 || Ask(fd, 1, NULL, 0) != 0) return -1;
  if (Send(fd, 2, &features, 8, -1) != 0 || Send(fd, 5, table, sizeof table, memfd) != 0) return -1;
  if (Send(fd, 8, size, 8, -1) != 0 || Send(fd, 10, base, 8, -1) != 0) return -1;
  if (Send(fd, 9, rings, sizeof rings, -1) != 0 || Send(fd, 13, &zero, 8, call_fd) != 0) return -1;
  if (Send(fd, 12, &zero, 8, kick_fd) != 0) return -1;
  close(memfd);
  return Ask(fd, 1, NULL, 0) == 0 ? fd : -1;
}

static void Put(uint16_t index, uint64_t gpa, uint32_t length, uint16_t flags) {
  uint8_t* at = memory + 16 * index;
  const uint16_t next = (uint16_t)(index + 1);
  memcpy(at, &gpa, 8);
  memcpy(at + 8, &length, 4);
  memcpy(at + 12, &flags, 2);
  memcpy(at + 14, &next, 2);
}

// `n` reads of a sector, `depth` at a time, for each of which it waits.
int bench_vhost_read(uint32_t depth, int64_t n) {
  volatile uint16_t* avail = (volatile uint16_t*)(memory + kAvail);
  volatile uint16_t* used = (volatile uint16_t*)(memory + kUsed);
  if (depth * 3 > kQueue) return -1;
  for (int64_t done = 0; done < n;) {
    const uint32_t count = n - done < depth ? (uint32_t)(n - done) : depth;
    for (uint32_t i = 0; i < count; i++) {
      const uint64_t header[2] = {0, (uint64_t)(done + i) % 8192};
      const uint16_t head = (uint16_t)(3 * i);
      memcpy(memory + kHeaders + 16 * i, header, sizeof header);
      memory[kStatuses + i] = 0xff;
      Put(head, kHeaders + 16 * i, 16, 1);
      Put((uint16_t)(head + 1), kData + 512 * i, 512, 3);
      Put((uint16_t)(head + 2), kStatuses + i, 1, 2);
      avail[2 + avail_index++ % kQueue] = head;
    }
    __atomic_store_n(&avail[1], avail_index, __ATOMIC_SEQ_CST);
    const uint64_t one = 1;
    if ((used[0] & 1) == 0 && write(kick_fd, &one, 8) != 8) return -1;
    while (__atomic_load_n(&used[1], __ATOMIC_SEQ_CST) != avail_index) {
      // The daemon has made the eventfd non-blocking.
      struct pollfd call = {.fd = call_fd, .events = POLLIN};
      uint64_t calls;
      // Node's children end while this waits: EINTR.
      if (poll(&call, 1, -1) != 1 && errno != EINTR) return -1;
      if (read(call_fd, &calls, 8) != 8 && errno != EAGAIN) return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
      if (memory[kStatuses + i] != 0) return -1;
    }
    done += count;
  }
  return 0;
}
