// The host memory an environment has mapped, and the ArrayBuffers over it.
#ifndef KVM_BRIDGE_MAPPING_TABLE_H_
#define KVM_BRIDGE_MAPPING_TABLE_H_

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

#include <memory>
#include <vector>

#include "guarded_memory.h"

namespace kvm_bridge {

struct Mapping;

// An ArrayBuffer over a mapping. The object lives until V8 has let go of the memory, which can be later than the
// ArrayBuffer's own end: its memory may have been handed on with ArrayBuffer.prototype.transfer.
struct View {
  uint64_t start;
  // nullptr once the mapping is gone.
  Mapping* mapping;
  napi_ref buffer;
  std::shared_ptr<Reservation> reservation;
};

struct Range {
  uint64_t start;
  uint64_t end;
};

// Ranges of addresses that neither overlap nor touch, sorted.
class RangeSet {
 public:
  void Add(Range range);
  void Remove(Range range);
  bool Intersects(Range range) const;
  bool Contains(Range range) const;
  // The first address from `address` on that is in a range, or `otherwise` when there is none before that.
  uint64_t FirstFrom(uint64_t address, uint64_t otherwise) const;

 private:
  // The first range that ends behind the address.
  std::vector<Range>::const_iterator Behind(uint64_t address) const;

  std::vector<Range> ranges_;
};

struct Mapping {
  uint64_t start;
  uint64_t end;
  // Touching it cannot fault. Only such memory is ever handed to JavaScript.
  bool is_direct;
  // Backed by huge pages: what is given back to the pool may be gone for good.
  bool is_huge;
  // Made without any access: addresses into which other memory may be put. It never was direct, so there are no views.
  bool is_reservation;
  // Parts without memory: what was unmapped, or is reserved only. Their addresses stay taken.
  RangeSet holes;
  // Parts of a reservation that cannot fault, so that they may be copied without asking the kernel.
  RangeSet plain;
  std::vector<View*> views;
  std::shared_ptr<Reservation> reservation;

  // There is nothing any more.
  void Empty(Range range) {
    holes.Add(range);
    plain.Remove(range);
  }
  // The bytes from `address` to the next hole or the end, at most `length`.
  size_t Readable(uint64_t address, size_t length) const;
  // Whether no access to the bytes can fault.
  bool IsPlain(uint64_t address, size_t length) const {
    return is_direct || plain.Contains({address, address + length});
  }
};

// What happened to the views of a mapping that were to be detached.
enum class Detached {
  all,
  // V8 may still hold the memory of one whose ArrayBuffer is no more.
  some_in_doubt,
  // One was transferred: the memory is in use by an ArrayBuffer that we don't know.
  some_transferred,
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

  void Add(std::unique_ptr<Mapping> mapping);
  // The ArrayBuffer over these bytes, the same one for as long as somebody has it; nullptr when V8 makes none.
  napi_value GetView(napi_env env, Mapping& mapping, uint64_t start, size_t length);
  Detached DetachViews(napi_env env, Mapping& mapping);
  // Detaches the views and unmaps.
  void Remove(napi_env env, Mapping& mapping);
  void RemoveAll(napi_env env);

 private:
  static void FinalizeView(napi_env env, void* data, void* view);
  size_t IndexAbove(uint64_t address) const;

  // Sorted by address.
  std::vector<std::unique_ptr<Mapping>> mappings_;
  Mapping* last_found_ = nullptr;
};

}  // namespace kvm_bridge

#endif
