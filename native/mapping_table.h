// The host memory an environment has mapped.
#ifndef KVM_BRIDGE_MAPPING_TABLE_H_
#define KVM_BRIDGE_MAPPING_TABLE_H_

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

#include "guarded_memory.h"
#include "ranges.h"
#include "served.h"
#include "view.h"

namespace kvm_bridge {

struct Mapping : ViewList {
  Mapping();

  uint64_t start = 0;
  uint64_t end = 0;
  // Touching it cannot fault, if nobody serves it.
  bool is_direct = false;
  // Others may have the same pages.
  bool is_shared = false;
  // mprotect(2) was here.
  bool is_protected = false;
  // Backed by huge pages: what is given back to the pool may be gone for good.
  bool is_huge = false;
  // Made without any access: addresses into which other memory may be put. It never was direct, so there are no views.
  bool is_reservation = false;
  // Parts without memory: what was unmapped, or is reserved only. Their addresses stay taken.
  RangeSet holes;
  // Parts of a reservation that cannot fault, so that they may be copied without asking the kernel.
  RangeSet plain;
  // Parts that wait for a userfaultfd of ours.
  Served served;
  Ref<Reservation> reservation;

  // Before `Empty` or another change of the sets: whether there is memory for it.
  bool Reserve() { return holes.Reserve() && plain.Reserve() && served.Reserve(); }
  // There is nothing any more.
  void Empty(Range range) {
    holes.Add(range);
    plain.Remove(range);
    served.Remove(range);
  }
  // Before the descriptor `by` serves a part: 0 and there are no views any more, or -errno.
  int PrepareToServe(int by);
  // Only such memory is ever handed to JavaScript: it can be touched without a fault, and without waiting.
  bool MayBeTouched() const { return is_direct && served.is_empty(); }
  // The bytes from `address` to the next hole or the end, at most `length`.
  size_t Readable(uint64_t address, size_t length) const;
  // Whether no access to the bytes can fault.
  bool IsPlain(uint64_t address, size_t length) const {
    return MayBeTouched() || plain.Contains({address, address + length});
  }
};

class MappingTable {
 public:
  MappingTable() = default;
  MappingTable(const MappingTable&) = delete;
  MappingTable& operator=(const MappingTable&) = delete;

  // The mapping that contains the address, or nullptr.
  Mapping* Find(uint64_t address);
  // The mapping that contains [start, start + length), or nullptr.
  Mapping* FindRange(uint64_t start, uint64_t length);
  // Whether memory that may be touched ends, and inaccessible addresses begin, right behind these bytes.
  bool EndsAtGuard(const uint8_t* data, size_t length);

  // Before `Add`: whether there is memory for it.
  bool Reserve() { return by_start_.Reserve(); }
  void Add(Mapping* mapping);
  // Detaches the views and unmaps. Whoever still looks there sees zeroes of its own, and memslots find nothing.
  void Remove(Mapping& mapping);
  void RemoveAll();

  // What is served may be more than before, or less.
  void ServedChanged();
  // The descriptor will be closed, which serves nothing any more.
  void EndServing(int by);
  void EndServingAll();
  // Whether an access to guest memory may have to wait for this thread.
  bool IsServing() const { return is_serving_; }

 private:
  bool is_serving_ = false;
  ReservedMap<uint64_t, Mapping*> by_start_;
  Mapping* last_found_ = nullptr;
};

// Puts memory that was made elsewhere in the place of what is there: 0, or -errno. `is_empty` says whether nothing is
// there any more then; nobody else can have got the place.
int MoveTo(uint8_t* made, uint64_t size, uint64_t place, bool* is_empty);

// Puts new pages without contents in the place of what is there, with this protection; 0, or -errno and all is as it was.
int PutEmptyPages(uint64_t start, uint64_t size, int prot);

}  // namespace kvm_bridge

#endif
