// What a VM's memslots lie over. A slot keeps its addresses taken: the kernel writes there for as long as a guest can run,
// and nobody else may be given them meanwhile.
#ifndef KVM_BRIDGE_SLOTS_H_
#define KVM_BRIDGE_SLOTS_H_

#include <stdint.h>

#include <atomic>

#include "counted.h"
#include "guarded_memory.h"
#include "nodes.h"

namespace kvm_bridge {

class MappingTable;

// Held by the VM's descriptor and by those of its vCPUs, in any of which a guest may be running.
class VmSlots : public Counted {
 public:
  // KVM_SET_USER_MEMORY_REGION or 2 with the structure that is at `region`, of which `slot`, `size` and `hva` are fields.
  // -EPERM where the slot would lie over memory of the process that is not inside one mapping of ours.
  int64_t SetRegion(MappingTable& mappings, int vm, unsigned long request, uint32_t slot, uint64_t size, uint64_t hva,
                    void* region);

  // A run of one of its vCPUs was asked for; and came to its end.
  void Enter() { runs_++; }
  void Leave() { runs_--; }
  // Changes of slots and of the bus have the kernel wait until all guests have let go of what they are in the middle of: whoever serves
  // their memory must not ask for one while there are any.
  bool WouldWait(MappingTable& mappings);

 private:
  int64_t RefuseForeign(int vm, unsigned long request, uint64_t size, uint64_t hva, void* region);

  // What a slot lies over, by as_id << 16 | id.
  ReservedMap<uint32_t, Ref<Reservation>> by_slot_;
  std::atomic<uint32_t> runs_{0};
};

}  // namespace kvm_bridge

#endif
