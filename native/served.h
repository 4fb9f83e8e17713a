// What of a mapping a userfaultfd of this environment serves. Whoever touches it may have to wait for the thread that
// serves it, and that thread must not be the one that waits: what it touches is looked at before, page by page.
#ifndef KVM_BRIDGE_SERVED_H_
#define KVM_BRIDGE_SERVED_H_

#include <stddef.h>
#include <stdint.h>

#include "guarded_memory.h"
#include "ranges.h"

namespace kvm_bridge {

class Served {
 public:
  Served() = default;
  ~Served();
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  // Before `Add`, `Remove`, `End`: whether there is memory for it.
  bool Reserve() { return missing_.Reserve() && stores_.Reserve(); }
  // Before the first `Add`, of memory that is shared: its other users may take pages out after we have looked, so it is
  // reached by addresses that nobody serves. 0, or -errno.
  int MakeAlias(uint64_t start, uint64_t size);
  // The descriptor `by` serves a range from now on, in these modes.
  void Add(int by, Range range, uint64_t modes);
  void Remove(Range range);
  // Takes a range, or all, back from the kernel, which wakes whoever waits.
  void Unregister(Range range);
  void End();

  // Whose it is; -1 when nothing is served.
  int by() const { return by_; }
  bool is_empty() const { return missing_.is_empty() && stores_.is_empty(); }
  bool Intersects(Range range) const { return missing_.Intersects(range) || stores_.Intersects(range); }
  // The bytes from `address` on, at most `length`, that can be accessed without waiting for anybody.
  size_t Reachable(GuardedCopier& copier, uint64_t address, size_t length, bool is_write) const;
  // Where they are.
  uint64_t Reach(uint64_t address) const { return alias_ == nullptr ? address : address - start_ + AliasStart(); }
  // mprotect(2) has changed a range.
  void Protected(Range range, int prot);

 private:
  uint64_t AliasStart() const { return reinterpret_cast<uintptr_t>(alias_); }
  void DropAlias();

  int by_ = -1;
  // Where a page that isn't there makes its first access wait.
  RangeSet missing_;
  // Where a store to a page that is protected waits.
  RangeSet stores_;
  uint8_t* alias_ = nullptr;
  uint64_t start_ = 0;
  uint64_t size_ = 0;
};

}  // namespace kvm_bridge

#endif
