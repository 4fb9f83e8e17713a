// Unix sockets that carry descriptors (SCM_RIGHTS), and descriptors that come from elsewhere. Everything is non-blocking
// and close-on-exec.
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

#include "call.h"

namespace kvm_bridge {
namespace {

// The most descriptors that one message carries (SCM_MAX_FD of the kernel).
constexpr size_t kMostDescriptors = 253;
// 0, 1 and 2 mean something to whoever is started.
constexpr int kFirstOwn = 3;

int64_t Result(int64_t result) { return result < 0 ? -errno : result; }

// A descriptor that somebody else made. Only what can't shrink under its mappings may be mapped for JavaScript, and pages of a
// huge pool that another process punches out may not come back.
Kind KindOf(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return Kind::other;
  struct statfs status;
  return fstatfs(fd, &status) == 0 && status.f_type != HUGETLBFS_MAGIC ? Kind::memfd : Kind::other;
}

// Whether it is a VM or vCPU of KVM. Another descriptor of one would know nothing of its memslots, nor of a run under way.
bool IsGuest(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  char name[32];
  const ssize_t length = readlink(path, name, sizeof name);
  // Where nobody can tell (there is no /proc), all that have no file of their own may be one.
  struct statfs file_system;
  if (length < 0) return fstatfs(fd, &file_system) != 0 || file_system.f_type == ANON_INODE_FS_MAGIC;
  const auto begins = [&](const char* start) {
    return length >= static_cast<ssize_t>(strlen(start)) && memcmp(name, start, strlen(start)) == 0;
  };
  return begins("anon_inode:kvm-vm") || begins("anon_inode:kvm-vcpu");
}

// Takes over a descriptor that somebody else made.
int64_t AdoptAny(Environment& environment, int fd) {
  if (!IsGuest(fd)) return environment.descriptors.Adopt(fd, KindOf(fd));
  close(fd);
  return -EPERM;
}

int64_t AdoptSocket(Environment& environment, int fd) {
  return environment.descriptors.Adopt(fd < 0 ? -errno : fd, Kind::other);
}

int64_t SocketType(uint32_t type) {
  return type == SOCK_STREAM || type == SOCK_SEQPACKET ? int64_t{type} | SOCK_CLOEXEC | SOCK_NONBLOCK : -EINVAL;
}

// Room for one message's descriptors.
union Control {
  char bytes[CMSG_SPACE(kMostDescriptors * sizeof(int))];
  cmsghdr aligned;
};

struct Address {
  sockaddr_un address = {};

  bool Set(const Name& path) {
    address.sun_family = AF_UNIX;
    const size_t length = strlen(path.text);
    if (length >= sizeof address.sun_path) return false;
    memcpy(address.sun_path, path.text, length + 1);
    return true;
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

int64_t SocketPair(Environment& environment, uint32_t type, Array<int32_t> fds) {
  const int64_t wanted = SocketType(type);
  if (wanted < 0 || fds.length < 2) return -EINVAL;
  int pair[2];
  if (socketpair(AF_UNIX, static_cast<int>(wanted), 0, pair) != 0) return -errno;
  const int64_t first = AdoptSocket(environment, pair[0]);
  const int64_t second = AdoptSocket(environment, pair[1]);
  if (first >= 0 && second >= 0) {
    fds.data[0] = pair[0];
    fds.data[1] = pair[1];
    return 0;
  }
  // One alone is of no use. What was not adopted is closed.
  if (first >= 0) environment.descriptors.Close(pair[0]);
  if (second >= 0) environment.descriptors.Close(pair[1]);
  return first < 0 ? first : second;
}

// A new socket on which `use` succeeded.
template <typename Use>
int64_t MakeSocket(Environment& environment, const Name& path, uint32_t type, Use use) {
  const int64_t wanted = SocketType(type);
  if (wanted < 0) return wanted;
  Address address;
  if (!address.Set(path)) return -ENAMETOOLONG;
  const int fd = socket(AF_UNIX, static_cast<int>(wanted), 0);
  if (fd < 0) return -errno;
  int result;
  do {
    result = use(fd, address.get());
  } while (result != 0 && errno == EINTR);
  if (result == 0) return AdoptSocket(environment, fd);
  const int error = errno;
  close(fd);
  return -error;
}

int64_t SocketListen(Environment& environment, Name path, uint32_t type, uint32_t backlog) {
  const int most = static_cast<int>(std::min<uint32_t>(backlog, SOMAXCONN));
  return MakeSocket(environment, path, type, [&](int fd, const sockaddr* address) {
    return bind(fd, address, sizeof(sockaddr_un)) == 0 ? listen(fd, most) : -1;
  });
}

int64_t SocketConnect(Environment& environment, Name path, uint32_t type) {
  return MakeSocket(environment, path, type,
                    [](int fd, const sockaddr* address) { return connect(fd, address, sizeof(sockaddr_un)); });
}

int64_t SocketAccept(Environment& environment, OwnFd listener) {
  int fd;
  do {
    fd = accept4(listener.number, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  return AdoptSocket(environment, fd);
}

int64_t SendMessage(Environment&, OwnFd socket, Array<uint8_t> bytes, Array<int32_t> fds) {
  // Descriptors travel with a byte; without one they would be lost.
  if (fds.length > kMostDescriptors || (fds.length > 0 && bytes.length == 0)) return -EINVAL;
  iovec data = {bytes.data, bytes.length};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  Control control = {};
  if (fds.length > 0) {
    const size_t length = fds.length * sizeof(int);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(length);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(header), fds.data, length);
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket.number, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return Result(sent);
}

// Takes over the descriptors of a message, as many as `fds` has room for, and closes the others. All of them where one can't be
// taken over: -errno.
int64_t TakeDescriptors(Environment& environment, msghdr& message, Array<int32_t> fds) {
  // Not to be read back from `fds`, which another thread may write.
  int own[kMostDescriptors];
  size_t taken = 0;
  int64_t error = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      if (error != 0 || taken == std::min(fds.length, kMostDescriptors)) {
        close(fd);
        continue;
      }
      const int64_t adopted = AdoptAny(environment, fd);
      if (adopted >= 0) own[taken++] = fd;
      if (adopted < 0) error = adopted;
    }
  }
  if (error != 0) {
    for (size_t i = 0; i < taken; i++) environment.descriptors.Close(own[i]);
    taken = 0;
  }
  std::copy(own, own + taken, fds.data);
  std::fill(fds.data + taken, fds.data + fds.length, -1);
  return error;
}

int64_t ReceiveMessage(Environment& environment, OwnFd socket, Array<uint8_t> into, Array<int32_t> fds) {
  iovec data = {into.data, into.length};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  Control control;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t received;
  do {
    received = recvmsg(socket.number, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (received < 0 && errno == EINTR);
  if (received < 0) {
    std::fill(fds.data, fds.data + fds.length, -1);
    return -errno;
  }
  // Descriptors are missing, since the process has no room for more: what is left of them is of no use. Likewise a datagram's part.
  const bool is_cut = (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
  const int64_t error = TakeDescriptors(environment, message, is_cut ? Array<int32_t>{fds.data, 0} : fds);
  if (!is_cut) return error != 0 ? error : received;
  std::fill(fds.data, fds.data + fds.length, -1);
  return (message.msg_flags & MSG_CTRUNC) != 0 ? -EMFILE : -EMSGSIZE;
}

int64_t PeerCredentials(Environment&, OwnFd socket, Array<uint32_t> into) {
  if (into.length < 3) return -EINVAL;
  ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(socket.number, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return -errno;
  into.data[0] = static_cast<uint32_t>(peer.pid);
  into.data[1] = peer.uid;
  into.data[2] = peer.gid;
  return 0;
}

// A descriptor of our own for what any descriptor of the process names. That of a vCPU is the only one to use it until it is closed.
int64_t Duplicate(Environment& environment, int32_t fd) {
  if (const Ref<Vcpu> vcpu = Vcpu::FindInProcess(fd)) return environment.descriptors.Borrow(vcpu);
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, kFirstOwn);
  return own < 0 ? -errno : AdoptAny(environment, own);
}

int64_t GetSeals(Environment&, OwnFd fd) { return Result(fcntl(fd.number, F_GET_SEALS)); }

int64_t AddSeals(Environment&, OwnFd fd, uint32_t seals) {
  return Result(fcntl(fd.number, F_ADD_SEALS, static_cast<int>(seals)));
}

// Another descriptor for the same file with an open file description of its own, whose locks are its own.
int64_t Reopen(Environment& environment, OwnFd fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd.number);
  const int own = open(path, O_RDWR | O_CLOEXEC);
  return environment.descriptors.Adopt(own < 0 ? -errno : own, own < 0 ? Kind::none : KindOf(own));
}

struct flock LockOf(uint64_t start, uint64_t length, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(start);
  lock.l_len = static_cast<off_t>(length);
  return lock;
}

int64_t LockRange(Environment&, OwnFd fd, uint64_t start, uint64_t length) {
  struct flock lock = LockOf(start, length, F_WRLCK);
  return Result(fcntl(fd.number, F_OFD_SETLK, &lock));
}

int64_t UnlockRange(Environment&, OwnFd fd, uint64_t start, uint64_t length) {
  struct flock lock = LockOf(start, length, F_UNLCK);
  return Result(fcntl(fd.number, F_OFD_SETLK, &lock));
}

int64_t IsLocked(Environment&, OwnFd fd, uint64_t start, uint64_t length) {
  struct flock lock = LockOf(start, length, F_WRLCK);
  if (fcntl(fd.number, F_OFD_GETLK, &lock) != 0) return -errno;
  return lock.l_type == F_UNLCK ? 0 : 1;
}

}  // namespace

void ExportSharing(Exports exports) {
  Exports sharing = exports.Group("sharing");
  sharing.Add<SocketPair>("socketPair");
  sharing.Add<SocketListen>("socketListen");
  sharing.Add<SocketConnect>("socketConnect");
  sharing.Add<SocketAccept>("socketAccept");
  sharing.Add<SendMessage>("sendMessage");
  sharing.Add<ReceiveMessage>("receiveMessage");
  sharing.Add<PeerCredentials>("peerCredentials");
  sharing.Add<Duplicate>("duplicate");
  sharing.Add<GetSeals>("getSeals");
  sharing.Add<AddSeals>("addSeals");
  sharing.Add<Reopen>("reopen");
  sharing.Add<LockRange>("lockRange");
  sharing.Add<UnlockRange>("unlockRange");
  sharing.Add<IsLocked>("isLocked");
}

}  // namespace kvm_bridge
