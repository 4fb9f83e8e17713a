#include "guarded_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

namespace kvm_bridge {
namespace {

size_t Copied(ssize_t result) { return result > 0 ? static_cast<size_t>(result) : 0; }

// What two ways of copying achieved together, where the second may have failed.
int64_t Total(size_t done, int64_t rest) {
  if (rest < 0 && done == 0) return rest;
  return static_cast<int64_t>(done) + std::max<int64_t>(rest, 0);
}

}  // namespace

size_t PageSize() { return static_cast<size_t>(getpagesize()); }

Reservation::Reservation(size_t length) {
  void* start = mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return;
  start_ = static_cast<uint8_t*>(start);
  length_ = length;
}

Reservation::Reservation(uint8_t* place, size_t length) {
  void* start = mmap(place, length, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (start == MAP_FAILED) return;
  start_ = static_cast<uint8_t*>(start);
  length_ = length;
}

Reservation::~Reservation() {
  if (start_ != nullptr) munmap(start_, length_);
}

void Reservation::Trim(uint8_t* from, uint8_t* to) {
  uint8_t* end = start_ + length_;
  if (from > start_) munmap(start_, static_cast<size_t>(from - start_));
  if (end > to) munmap(to, static_cast<size_t>(end - to));
  start_ = from;
  length_ = static_cast<size_t>(to - from);
}

Scratch::~Scratch() { delete region_; }

uint8_t* Scratch::EndingAtGuard(size_t length) {
  if (region_ == nullptr || length > capacity_) {
    delete region_;
    region_ = nullptr;
    const size_t capacity = RoundUp(std::max(length, 2 * PageSize()), PageSize());
    auto* region = new (std::nothrow) Reservation(capacity + PageSize());
    if (region == nullptr || region->start() == nullptr ||
        mprotect(region->start(), capacity, PROT_READ | PROT_WRITE) != 0) {
      delete region;
      return nullptr;
    }
    region_ = region;
    capacity_ = capacity;
  }
  return region_->start() + capacity_ - length;
}

CallerBuffer::CallerBuffer(Scratch& scratch, const Bytes& bytes, bool is_enough, Use use) : bytes_(bytes) {
  if (bytes.is_null) return;
  if (is_enough) {
    address_ = bytes.data;
    return;
  }
  address_ = scratch.EndingAtGuard(bytes.length);
  has_memory_ = address_ != nullptr;
  if (!has_memory_ || bytes.length == 0) return;
  // Also for a buffer to fill: what the kernel leaves alone must come back as it was.
  memcpy(address_, bytes.data, bytes.length);
  copy_back_ = use == Use::filled_by_kernel;
}

CallerBuffer::~CallerBuffer() {
  if (copy_back_) memcpy(bytes_.data, address_, bytes_.length);
}

GuardedCopier::~GuardedCopier() {
  if (pipe_[0] >= 0) close(pipe_[0]);
  if (pipe_[1] >= 0) close(pipe_[1]);
  if (pagemap_ >= 0) close(pagemap_);
}

int64_t GuardedCopier::Read(uint8_t* to, const uint8_t* guarded, size_t length) {
  iovec local = {to, length};
  iovec remote = {const_cast<uint8_t*>(guarded), length};
  const size_t done = Copied(process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
  if (done == length) return static_cast<int64_t>(done);
  return Total(done, ThroughPipe(to + done, guarded + done, length - done, guarded + done));
}

int64_t GuardedCopier::Write(uint8_t* guarded, const uint8_t* from, size_t length) {
  iovec local = {const_cast<uint8_t*>(from), length};
  iovec remote = {guarded, length};
  const size_t done = Copied(process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
  if (done == length) return static_cast<int64_t>(done);
  return Total(done, ThroughPipe(guarded + done, from + done, length - done, guarded + done));
}

// process_vm_* stop at a device's pages, and a seccomp filter may refuse them altogether: from there on the kernel's own
// copies of read(2) and write(2) do it, a page of the guarded side at a time, because a piece is copied wholly or not.
int64_t GuardedCopier::ThroughPipe(uint8_t* to, const uint8_t* from, size_t length, const uint8_t* guarded) {
  const int opened = OpenPipe();
  if (opened != 0) return opened;
  const size_t piece_limit = 4096;
  size_t done = 0;
  while (done < length) {
    const size_t in_page = piece_limit - (reinterpret_cast<uintptr_t>(guarded + done) & (piece_limit - 1));
    const size_t piece = std::min(length - done, in_page);
    const ssize_t taken = write(pipe_[1], from + done, piece);
    if (taken <= 0) break;
    const ssize_t given = read(pipe_[0], to + done, static_cast<size_t>(taken));
    if (given != taken) {
      uint8_t rest[piece_limit];
      while (read(pipe_[0], rest, sizeof rest) > 0) continue;
      break;
    }
    done += static_cast<size_t>(given);
  }
  return done > 0 ? static_cast<int64_t>(done) : -EFAULT;
}

int GuardedCopier::Pagemap() {
  if (pagemap_ < 0) pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  return pagemap_ < 0 ? -errno : pagemap_;
}

int GuardedCopier::OpenPipe() {
  if (pipe_[0] >= 0) return 0;
  return pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) == 0 ? 0 : -errno;
}

}  // namespace kvm_bridge
