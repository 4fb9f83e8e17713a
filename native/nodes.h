// Ordered maps whose memory is set aside before something happens that cannot be undone: the addon is compiled without
// exceptions, and a failing allocation of the standard library's would end the process.
#ifndef KVM_BRIDGE_NODES_H_
#define KVM_BRIDGE_NODES_H_

#include <stddef.h>
#include <stdlib.h>

#include <functional>
#include <map>
#include <utility>

namespace kvm_bridge {

class SpareNodes {
 public:
  SpareNodes() = default;
  ~SpareNodes() {
    while (first_ != nullptr) free(Take());
  }
  SpareNodes(const SpareNodes&) = delete;
  SpareNodes& operator=(const SpareNodes&) = delete;

  static constexpr size_t kNodeSize = 64;

  // Whether so many nodes can be had from now on.
  bool Reserve(size_t count) {
    while (count_ < count) {
      void* node = malloc(kNodeSize);
      if (node == nullptr) return false;
      Push(node);
    }
    return true;
  }

  void* Take() {
    Node* node = first_;
    first_ = node->next;
    count_--;
    return node;
  }

  void GiveBack(void* node) {
    if (count_ < kKept) {
      Push(node);
    } else {
      free(node);
    }
  }

 private:
  struct Node {
    Node* next;
  };
  static constexpr size_t kKept = 4;

  void Push(void* memory) {
    first_ = new (memory) Node{first_};
    count_++;
  }

  Node* first_ = nullptr;
  size_t count_ = 0;
};

template <typename T>
class NodeAllocator {
 public:
  using value_type = T;

  explicit NodeAllocator(SpareNodes* spare) : spare_(spare) {}
  template <typename Other>
  NodeAllocator(const NodeAllocator<Other>& other) : spare_(other.spare()) {}

  T* allocate(size_t) {
    static_assert(sizeof(T) <= SpareNodes::kNodeSize, "a node of the map");
    return static_cast<T*>(spare_->Take());
  }
  void deallocate(T* node, size_t) { spare_->GiveBack(node); }

  SpareNodes* spare() const { return spare_; }
  template <typename Other>
  bool operator==(const NodeAllocator<Other>& other) const {
    return spare_ == other.spare();
  }
  template <typename Other>
  bool operator!=(const NodeAllocator<Other>& other) const {
    return spare_ != other.spare();
  }

 private:
  SpareNodes* spare_;
};

// A std::map; whoever inserts has called `Reserve` before, and has seen it succeed.
template <typename Key, typename Value>
class ReservedMap {
  using Pair = std::pair<const Key, Value>;

 public:
  using Map = std::map<Key, Value, std::less<Key>, NodeAllocator<Pair>>;

  ReservedMap() : map_(NodeAllocator<Pair>(&spare_)) {}

  bool Reserve(size_t count = 1) { return spare_.Reserve(count); }
  Map* operator->() { return &map_; }
  const Map* operator->() const { return &map_; }
  Map& operator*() { return map_; }
  const Map& operator*() const { return map_; }

 private:
  SpareNodes spare_;
  Map map_;
};

}  // namespace kvm_bridge

#endif
