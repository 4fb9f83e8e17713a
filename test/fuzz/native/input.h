// The fuzzer's bytes as the numbers and arrays that a target wants, and values made of them.
#ifndef KVM_BRIDGE_FUZZ_INPUT_H_
#define KVM_BRIDGE_FUZZ_INPUT_H_

#include <string.h>

#include <algorithm>
#include <deque>
#include <memory>

#include "fake_node_api.h"

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), left_(size) {}

  size_t left() const { return left_; }

  // 0 where there is nothing left.
  template <typename T>
  T Take() {
    T value = {};
    TakeBytes(&value, sizeof value);
    return value;
  }

  size_t TakeBytes(void* to, size_t count) {
    count = std::min(count, left_);
    if (count > 0) memcpy(to, at_, count);
    at_ += count;
    left_ -= count;
    return count;
  }

 private:
  const uint8_t* at_;
  size_t left_;
};

// Memory of exactly so many bytes, where the sanitizer sees a byte more; `skew` bytes off what malloc aligns.
class Memory {
 public:
  explicit Memory(size_t size, size_t skew = 0) : bytes_(new uint8_t[size + skew]()), skew_(skew), size_(size) {}

  uint8_t* data() const { return bytes_.get() + skew_; }
  size_t size() const { return size_; }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t skew_;
  size_t size_;
};

inline FakeValue BytesValue(uint8_t* data, size_t length) {
  FakeValue value;
  value.sort = Sort::typed_array;
  value.data = data;
  value.length = length;
  return value;
}

inline FakeValue NumberValue(double number) {
  FakeValue value;
  value.sort = Sort::number;
  value.number = number;
  return value;
}

#endif
