// References that are counted in the object itself: taking one needs no memory, so that it cannot fail.
#ifndef KVM_BRIDGE_COUNTED_H_
#define KVM_BRIDGE_COUNTED_H_

#include <stdint.h>

#include <atomic>
#include <new>
#include <utility>

namespace kvm_bridge {

class Counted {
 public:
  Counted() = default;
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

  bool is_shared() const { return references_.load(std::memory_order_acquire) > 1; }

 private:
  template <typename T>
  friend class Ref;
  std::atomic<uint32_t> references_{0};
};

// Deletes the object when the last reference goes, on any thread.
template <typename T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) {
    if (object_ != nullptr) object_->references_.fetch_add(1, std::memory_order_relaxed);
  }
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr && object_->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete object_;
  }

  // A new object; a null reference where there is no memory.
  template <typename... Arguments>
  static Ref Make(Arguments&&... arguments) {
    return Ref(new (std::nothrow) T(std::forward<Arguments>(arguments)...));
  }

  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

}  // namespace kvm_bridge

#endif
