// Memory whose end the kernel can feel, and copies that cannot fault.
#ifndef KVM_BRIDGE_GUARDED_MEMORY_H_
#define KVM_BRIDGE_GUARDED_MEMORY_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "arguments.h"
#include "counted.h"

namespace kvm_bridge {

size_t PageSize();

// `value` rounded up to a multiple of `unit`, a power of two; 0 when that would be more than 64 bits.
inline uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) & ~(unit - 1); }

// A range of addresses that is ours until the object goes.
class Reservation : public Counted {
 public:
  // Inaccessible addresses; a null start and errno when there are none.
  explicit Reservation(size_t length);
  // The same at a place where nothing is: EEXIST otherwise.
  Reservation(uint8_t* place, size_t length);
  ~Reservation();
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  uint8_t* start() const { return start_; }
  size_t length() const { return length_; }
  bool Contains(uint64_t address, uint64_t size) const {
    const uint64_t from = address - reinterpret_cast<uintptr_t>(start_);
    return from <= length_ && size <= length_ - from;
  }
  // Gives back what lies before `from` and behind `to`.
  void Trim(uint8_t* from, uint8_t* to);
  // The addresses aren't ours any more.
  void Forget() { start_ = nullptr; }

 private:
  uint8_t* start_ = nullptr;
  size_t length_ = 0;
};

// Memory that ends right before an inaccessible page, used again by each call and grown on demand.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // `length` bytes that end at the inaccessible page; nullptr when there is no memory for them.
  uint8_t* EndingAtGuard(size_t length);

 private:
  Reservation* region_ = nullptr;
  size_t capacity_ = 0;
};

// A caller's bytes as an address for the kernel. Where the kernel might go beyond their end it gets a copy with an
// inaccessible page behind it, so that it answers EFAULT in its own order of checks; what it filled is copied back.
class CallerBuffer {
 public:
  enum class Use { read_by_kernel, filled_by_kernel };

  // `is_enough`: the kernel is known to stay within the bytes.
  CallerBuffer(Scratch& scratch, const Bytes& bytes, bool is_enough, Use use);
  ~CallerBuffer();
  CallerBuffer(const CallerBuffer&) = delete;
  CallerBuffer& operator=(const CallerBuffer&) = delete;

  bool has_memory() const { return has_memory_; }
  void* address() const { return address_; }

 private:
  Bytes bytes_;
  void* address_ = nullptr;
  bool has_memory_ = true;
  bool copy_back_ = false;
};

// Copies between the caller's memory and mapped memory that may fault: the kernel does it, and stops at the fault.
class GuardedCopier {
 public:
  GuardedCopier() = default;
  ~GuardedCopier();
  GuardedCopier(const GuardedCopier&) = delete;
  GuardedCopier& operator=(const GuardedCopier&) = delete;

  // Bytes copied before the first that could not be; -errno when there is none.
  int64_t Read(uint8_t* to, const uint8_t* guarded, size_t length);
  int64_t Write(uint8_t* guarded, const uint8_t* from, size_t length);
  // What the kernel says of this process's pages: a descriptor, or -errno.
  int Pagemap();

 private:
  int64_t ThroughPipe(uint8_t* to, const uint8_t* from, size_t length, const uint8_t* guarded);
  int OpenPipe();

  int pipe_[2] = {-1, -1};
  int pagemap_ = -1;
};

}  // namespace kvm_bridge

#endif
