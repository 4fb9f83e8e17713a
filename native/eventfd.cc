// Eventfds, and what KVM does with them; coalesced MMIO; the interrupt controller in the kernel.
#include <sys/eventfd.h>

#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {
namespace {

int64_t Eventfd(Environment& environment, uint32_t initial) {
  const int fd = eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK);
  return environment.descriptors.Adopt(fd < 0 ? -errno : fd, Kind::other);
}

// The buses change when all guests have let go of them.
bool WouldWait(Environment& environment, const OwnFd& vm) {
  VmSlots* const slots = vm.descriptor->slots.get();
  return slots != nullptr && slots->WouldWait(environment.mappings);
}

int64_t Ioeventfd(Environment& environment, OwnFd vm, uint64_t addr, uint32_t len, Word32 fd, uint32_t flags,
                  uint64_t datamatch) {
  if (WouldWait(environment, vm)) return -EDEADLK;
  kvm_ioeventfd ioeventfd = {};
  ioeventfd.datamatch = datamatch;
  ioeventfd.addr = addr;
  ioeventfd.len = len;
  ioeventfd.fd = fd.AsSigned();
  ioeventfd.flags = flags;
  return Ioctl(vm.number, KVM_IOEVENTFD, &ioeventfd);
}

int64_t Irqfd(Environment&, OwnFd vm, Word32 fd, uint32_t gsi, uint32_t flags, Word32 resamplefd) {
  kvm_irqfd irqfd = {};
  irqfd.fd = fd.bits;
  irqfd.gsi = gsi;
  irqfd.flags = flags;
  irqfd.resamplefd = resamplefd.bits;
  return Ioctl(vm.number, KVM_IRQFD, &irqfd);
}

int64_t CoalescedZone(Environment& environment, const OwnFd& vm, unsigned long request, uint64_t addr,
                      uint32_t size, uint32_t pio) {
  if (WouldWait(environment, vm)) return -EDEADLK;
  kvm_coalesced_mmio_zone zone = {};
  zone.addr = addr;
  zone.size = size;
  zone.pio = pio;
  return Ioctl(vm.number, request, &zone);
}

int64_t RegisterCoalescedMmio(Environment& environment, OwnFd vm, uint64_t addr, uint32_t size, uint32_t pio) {
  return CoalescedZone(environment, vm, KVM_REGISTER_COALESCED_MMIO, addr, size, pio);
}

int64_t UnregisterCoalescedMmio(Environment& environment, OwnFd vm, uint64_t addr, uint32_t size, uint32_t pio) {
  return CoalescedZone(environment, vm, KVM_UNREGISTER_COALESCED_MMIO, addr, size, pio);
}

int64_t CreateIrqchip(Environment&, OwnFd vm) { return Ioctl(vm.number, KVM_CREATE_IRQCHIP); }

}  // namespace

void ExportEventfd(Exports exports) {
  exports.Add<Eventfd>("eventfd");
  exports.Add<Ioeventfd>("ioeventfd");
  exports.Add<Irqfd>("irqfd");
  exports.Add<RegisterCoalescedMmio>("registerCoalescedMmio");
  exports.Add<UnregisterCoalescedMmio>("unregisterCoalescedMmio");
  exports.Add<CreateIrqchip>("createIrqchip");
}

}  // namespace kvm_bridge
