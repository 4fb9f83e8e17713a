// For tests alone, loaded before everything else (LD_PRELOAD):
//
//  * a /dev/kvm that needs no hardware: VMs that take everything, and vCPUs that stay inside KVM_RUN until a signal comes;
//  * calls of the addon's that fail: the n-th allocation, mmap, mprotect, mremap, ioctl or other one since it was asked for.
//
// The test says which by eventfd(FAULT | kind << 16 | n): it fails with EDOM, and so does the question how many calls of
// the kind there were since: -(1000 + count).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FAULT 0x40000000u
#define QUERY 0x20000000u

enum { NONE, ALLOCATION, MMAP, MPROTECT, MREMAP, IOCTL, OTHER };

static atomic_int kind_armed;
static atomic_int fails_at;
static atomic_int count;
static uintptr_t addon_start;
static uintptr_t addon_end;

static int find_addon(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  (void)data;
  if (strstr(info->dlpi_name, "kvm_bridge.node") == NULL) return 0;
  addon_start = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    if (info->dlpi_phdr[i].p_type == PT_LOAD && end > addon_end) addon_end = end;
  }
  return 1;
}

static int fails(int kind, const void *caller) {
  const uintptr_t at = (uintptr_t)caller;
  if (atomic_load(&kind_armed) != kind || at < addon_start || at >= addon_end) return 0;
  return atomic_fetch_add(&count, 1) + 1 == atomic_load(&fails_at);
}

#define CALLER __builtin_return_address(0)
#define FAIL_WITH(kind, error, value) \
  do {                                \
    if (fails(kind, CALLER)) {        \
      errno = error;                  \
      return value;                   \
    }                                 \
  } while (0)

extern void *__libc_malloc(size_t);

void *malloc(size_t size) {
  FAIL_WITH(ALLOCATION, ENOMEM, NULL);
  return __libc_malloc(size);
}

// operator new and new[] that return a null pointer.
void *_ZnwmRKSt9nothrow_t(size_t size, const void *tag) {
  (void)tag;
  FAIL_WITH(ALLOCATION, ENOMEM, NULL);
  return __libc_malloc(size == 0 ? 1 : size);
}

void *_ZnamRKSt9nothrow_t(size_t size, const void *tag) {
  (void)tag;
  FAIL_WITH(ALLOCATION, ENOMEM, NULL);
  return __libc_malloc(size == 0 ? 1 : size);
}

void *mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset) {
  FAIL_WITH(MMAP, ENOMEM, MAP_FAILED);
  return (void *)syscall(SYS_mmap, at, length, prot, flags, fd, offset);
}

void *mmap64(void *at, size_t length, int prot, int flags, int fd, off_t offset) {
  FAIL_WITH(MMAP, ENOMEM, MAP_FAILED);
  return (void *)syscall(SYS_mmap, at, length, prot, flags, fd, offset);
}

int mprotect(void *at, size_t length, int prot) {
  FAIL_WITH(MPROTECT, ENOMEM, -1);
  return (int)syscall(SYS_mprotect, at, length, prot);
}

void *mremap(void *at, size_t size, size_t new_size, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  void *place = va_arg(arguments, void *);
  va_end(arguments);
  FAIL_WITH(MREMAP, ENOMEM, MAP_FAILED);
  return (void *)syscall(SYS_mremap, at, size, new_size, flags, place);
}

int memfd_create(const char *name, unsigned flags) {
  FAIL_WITH(OTHER, EMFILE, -1);
  return (int)syscall(SYS_memfd_create, name, flags);
}

int timer_create(clockid_t clock, struct sigevent *event, timer_t *timer) {
  FAIL_WITH(OTHER, EAGAIN, -1);
  static int (*real)(clockid_t, struct sigevent *, timer_t *);
  if (real == NULL) real = (int (*)(clockid_t, struct sigevent *, timer_t *))dlsym(RTLD_NEXT, "timer_create");
  return real(clock, event, timer);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
  FAIL_WITH(OTHER, EAGAIN, EAGAIN);
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (real == NULL) {
    real = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
  }
  return real(thread, attributes, start, argument);
}

int eventfd(unsigned initial, int flags) {
  if ((initial & QUERY) != 0) {
    errno = 1000 + atomic_load(&count);
    return -1;
  }
  if ((initial & FAULT) != 0) {
    if (addon_end == 0) dl_iterate_phdr(find_addon, NULL);
    atomic_store(&count, 0);
    atomic_store(&fails_at, (int)(initial & 0xffff));
    atomic_store(&kind_armed, (int)(initial >> 16 & 0xff));
    errno = EDOM;
    return -1;
  }
  FAIL_WITH(OTHER, EMFILE, -1);
  return (int)syscall(SYS_eventfd2, initial, flags);
}

int socket(int domain, int type, int protocol) {
  FAIL_WITH(OTHER, EMFILE, -1);
  return (int)syscall(SYS_socket, domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int pair[2]) {
  FAIL_WITH(OTHER, EMFILE, -1);
  return (int)syscall(SYS_socketpair, domain, type, protocol, pair);
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
  FAIL_WITH(OTHER, ENOBUFS, -1);
  return (int)syscall(SYS_bind, fd, address, length);
}

int listen(int fd, int backlog) {
  FAIL_WITH(OTHER, EADDRINUSE, -1);
  return (int)syscall(SYS_listen, fd, backlog);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  FAIL_WITH(OTHER, ECONNREFUSED, -1);
  return (int)syscall(SYS_connect, fd, address, length);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
  FAIL_WITH(OTHER, EMFILE, -1);
  return (int)syscall(SYS_accept4, fd, address, length, flags);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *length) {
  FAIL_WITH(OTHER, ENOBUFS, -1);
  return (int)syscall(SYS_getsockopt, fd, level, option, value, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  FAIL_WITH(OTHER, ENOBUFS, -1);
  return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  FAIL_WITH(OTHER, ENOMEM, -1);
  return syscall(SYS_recvmsg, fd, message, flags);
}

int pipe2(int pair[2], int flags) {
  FAIL_WITH(OTHER, EMFILE, -1);
  return (int)syscall(SYS_pipe2, pair, flags);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long local_count, const struct iovec *remote,
                         unsigned long remote_count, unsigned long flags) {
  FAIL_WITH(OTHER, EPERM, -1);
  return syscall(SYS_process_vm_readv, pid, local, local_count, remote, remote_count, flags);
}

ssize_t process_vm_writev(pid_t pid, const struct iovec *local, unsigned long local_count, const struct iovec *remote,
                          unsigned long remote_count, unsigned long flags) {
  FAIL_WITH(OTHER, EPERM, -1);
  return syscall(SYS_process_vm_writev, pid, local, local_count, remote, remote_count, flags);
}

int madvise(void *at, size_t length, int advice) {
  FAIL_WITH(OTHER, ENOMEM, -1);
  return (int)syscall(SYS_madvise, at, length, advice);
}

int fallocate64(int fd, int mode, off_t offset, off_t length) {
  FAIL_WITH(OTHER, ENOSPC, -1);
  return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int ftruncate64(int fd, off_t length) {
  FAIL_WITH(OTHER, EFBIG, -1);
  return (int)syscall(SYS_ftruncate, fd, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off_t offset) {
  FAIL_WITH(OTHER, EIO, -1);
  return syscall(SYS_pread64, fd, bytes, length, offset);
}

ssize_t read(int fd, void *bytes, size_t length) {
  FAIL_WITH(OTHER, EIO, -1);
  return syscall(SYS_read, fd, bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  FAIL_WITH(OTHER, EIO, -1);
  return syscall(SYS_write, fd, bytes, length);
}

// Duplicates, seals and locks.
int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  FAIL_WITH(OTHER, command == F_OFD_SETLK ? ENOLCK : EMFILE, -1);
  return (int)syscall(SYS_fcntl, fd, command, argument);
}

// What programs call whose files may be large.
int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

// With NO_SIGNAL in the environment every realtime signal has a handler already, as the addon sees it.
int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
  static int (*real)(int, const struct sigaction *, struct sigaction *);
  if (real == NULL) real = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT, "sigaction");
  const int result = real(number, action, old);
  if (result == 0 && old != NULL && number >= SIGRTMIN && getenv("NO_SIGNAL") != NULL) old->sa_handler = SIG_IGN;
  return result;
}

// The fake KVM. Its files are memfds, so that vCPUs can be mapped.

enum role { NO_KVM, KVM, VM, VCPU };

#define MOST_FDS 4096
static atomic_int roles[MOST_FDS];
static atomic_int vcpu_ids[MOST_FDS];
// Of each vCPU: what is blocked while it runs, by KVM_SET_SIGNAL_MASK.
static _Atomic uint64_t run_masks[MOST_FDS];
static const long run_bytes = 3 * 4096;
// The dirty ring of a vCPU is 64 pages behind its kvm_run.
static const long file_bytes = 65 * 4096;

static int is_fake(void) { return getenv("FAKE_KVM") != NULL; }

static int new_file(enum role role) {
  const int fd = (int)syscall(SYS_memfd_create, "fake-kvm", MFD_CLOEXEC);
  if (fd < 0) return fd;
  if (fd >= MOST_FDS || ftruncate(fd, file_bytes) != 0) {
    syscall(SYS_close, fd);
    errno = EMFILE;
    return -1;
  }
  atomic_store(&roles[fd], role);
  return fd;
}

static int role_of(int fd) { return fd >= 0 && fd < MOST_FDS ? atomic_load(&roles[fd]) : NO_KVM; }

int close(int fd) {
  if (role_of(fd) != NO_KVM) atomic_store(&roles[fd], NO_KVM);
  return (int)syscall(SYS_close, fd);
}

static int open_file(const char *path, int flags, mode_t mode, const void *caller) {
  if (fails(OTHER, caller)) {
    errno = EMFILE;
    return -1;
  }
  if (is_fake() && strcmp(path, "/dev/kvm") == 0) return new_file(KVM);
  // With OVERCOMMIT in the environment that is where vm.overcommit_memory stands.
  if (getenv("OVERCOMMIT") != NULL && strcmp(path, "/proc/sys/vm/overcommit_memory") == 0) path = getenv("OVERCOMMIT");
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return open_file(path, flags, mode, CALLER);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return open_file(path, flags | O_LARGEFILE, mode, CALLER);
}

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// A guest that stays inside until it is signalled; one whose id is 100 and more doesn't leave for id - 100 tenths of a second.
static int run(int fd) {
  struct kvm_run *page = (struct kvm_run *)syscall(SYS_mmap, NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) return -1;
  const int id = atomic_load(&vcpu_ids[fd]);
  const long long stuck_until = id < 100 ? 0 : now_ms() + (id - 100) * 100LL;
  const struct timespec millisecond = {0, 1000000};
  const uint64_t mask = atomic_load(&run_masks[fd]);
  int is_signalled = 0;
  while ((!is_signalled && __atomic_load_n(&page->immediate_exit, __ATOMIC_SEQ_CST) == 0) || now_ms() < stuck_until) {
    // Unlike KVM it has handlers called; the kernel writes what is left of the time.
    struct timespec left = millisecond;
    if (syscall(SYS_ppoll, NULL, 0, &left, &mask, sizeof mask) != 0) is_signalled = 1;
  }
  syscall(SYS_munmap, page, run_bytes);
  errno = EINTR;
  return -1;
}

#define NAP 0x10000

// Whether a slot, which a real KVM would make, lies over the stack of the thread that asks.
static int is_on_stack(const struct kvm_userspace_memory_region *region) {
  const uint64_t address = region->userspace_addr;
  const uint64_t here = (uint64_t)(uintptr_t)__builtin_frame_address(0);
  const uint64_t distance = address > here ? address - here : here - address;
  return region->memory_size != 0 && distance < 16 << 20;
}

// KVM_CREATE_GUEST_MEMFD of 6.8, whose structure begins with the size.
#define CREATE_GUEST_MEMFD _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0xd4, 64)

// A memfd, which is no KVM's file from here on.
static int new_guest_memfd(uint64_t size) {
  const int fd = (int)syscall(SYS_memfd_create, "fake-guest-memory", MFD_CLOEXEC);
  if (fd < 0 || syscall(SYS_ftruncate, fd, size) == 0) return fd;
  syscall(SYS_close, fd);
  errno = ENOMEM;
  return -1;
}

static int fake_ioctl(int fd, int role, unsigned long request, void *argument) {
  switch (request) {
    case KVM_GET_API_VERSION:
      return 12;
    case KVM_GET_VCPU_MMAP_SIZE:
      return (int)run_bytes;
    case KVM_CHECK_EXTENSION: {
      // A call that the kernel never restarts: so many milliseconds of sleep.
      const long ms = (long)(intptr_t)argument - NAP;
      const struct timespec nap = {ms / 1000, ms % 1000 * 1000000};
      return ms > 0 ? nanosleep(&nap, NULL) : 0;
    }
    case KVM_CREATE_VM:
      return role == KVM ? new_file(VM) : (errno = ENOTTY, -1);
    case KVM_CREATE_VCPU: {
      const int vcpu = role == VM ? new_file(VCPU) : (errno = ENOTTY, -1);
      if (vcpu >= 0) atomic_store(&vcpu_ids[vcpu], (int)(long)argument);
      return vcpu;
    }
    case CREATE_GUEST_MEMFD:
      return role == VM ? new_guest_memfd(*(const uint64_t *)argument) : (errno = ENOTTY, -1);
    case KVM_SET_USER_MEMORY_REGION:
      return is_on_stack(argument) ? (errno = EXDEV, -1) : 0;
    case KVM_SET_SIGNAL_MASK: {
      uint64_t mask;
      memcpy(&mask, ((const struct kvm_signal_mask *)argument)->sigset, sizeof mask);
      if (role == VCPU) atomic_store(&run_masks[fd], mask);
      return role == VCPU ? 0 : (errno = ENOTTY, -1);
    }
    case KVM_RUN:
      return role == VCPU ? run(fd) : (errno = EINVAL, -1);
    default:
      return 0;
  }
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  FAIL_WITH(IOCTL, ENOMEM, -1);
  const int role = role_of(fd);
  return role != NO_KVM ? fake_ioctl(fd, role, request, argument) : (int)syscall(SYS_ioctl, fd, request, argument);
}
