// KVM_RUN, kick and the registers.
#include <string.h>

#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {

// Here and not in vcpu.cc because ioctlUnchecked may be asked for it as well.
int64_t RunVcpu(Environment& environment, OwnFd vcpu, double timeout_ms) {
  if (IsBusy(vcpu)) return -EBUSY;
  // The guest would wait for the thread that it runs on.
  if (environment.mappings.IsServing()) return -EDEADLK;
  // Kept alive by this reference, whatever happens meanwhile.
  const Ref<Vcpu> running = vcpu.descriptor->vcpu;
  if (!running) return Ioctl(vcpu.number, KVM_RUN);
  return running->RunHere(vcpu.number, environment.env(), environment.run_timer, timeout_ms);
}

namespace {

using Use = CallerBuffer::Use;

int64_t Run(Environment& environment, OwnFd vcpu, Milliseconds timeout) {
  return RunVcpu(environment, vcpu, timeout.value);
}

int64_t RunAsync(Environment& environment, napi_deferred deferred, OwnFd vcpu) {
  if (IsBusy(vcpu)) return -EBUSY;
  if (!vcpu.descriptor->vcpu) return Ioctl(vcpu.number, KVM_RUN);
  const int refused = environment.StartRun(vcpu, deferred);
  return refused == 0 ? kLater : refused;
}

// Not by way of IsKnown: a vCPU that another thread runs may be kicked from here.
int64_t Kick(Environment& environment, int32_t fd) {
  const Descriptor* own = environment.descriptors.Find(fd);
  const Ref<Vcpu> vcpu = own != nullptr ? own->vcpu : Vcpu::FindInProcess(fd);
  if (vcpu) return vcpu->Kick();
  // What KVM_RUN itself says of a descriptor that is no vCPU.
  return own != nullptr ? Ioctl(fd, KVM_RUN) : -EBADF;
}

// A run on this thread is not under way: whoever calls is on it.
int64_t Stop(Environment&, OwnFd vcpu) {
  const Ref<Vcpu> running = vcpu.descriptor->vcpu;
  return running ? running->Stop(vcpu.number) : Ioctl(vcpu.number, KVM_RUN);
}

int64_t Structure(Environment& environment, OwnFd vcpu, unsigned long request, Bytes bytes, size_t size, Use use) {
  if (IsBusy(vcpu)) return -EBUSY;
  const CallerBuffer buffer(environment.scratch, bytes, bytes.length >= size, use);
  if (!buffer.has_memory()) return -ENOMEM;
  return Ioctl(vcpu.number, request, buffer.address());
}

int64_t GetRegs(Environment& environment, OwnFd vcpu, Bytes regs) {
  return Structure(environment, vcpu, KVM_GET_REGS, regs, sizeof(kvm_regs), Use::filled_by_kernel);
}

int64_t SetRegs(Environment& environment, OwnFd vcpu, Bytes regs) {
  return Structure(environment, vcpu, KVM_SET_REGS, regs, sizeof(kvm_regs), Use::read_by_kernel);
}

int64_t GetSregs(Environment& environment, OwnFd vcpu, Bytes sregs) {
  return Structure(environment, vcpu, KVM_GET_SREGS, sregs, sizeof(kvm_sregs), Use::filled_by_kernel);
}

// Whether KVM reads the guest's memory for these registers: the page directory pointers of a guest that is not in long mode.
bool ReadsMemory([[maybe_unused]] const Bytes& sregs) {
#if defined(__x86_64__)
  kvm_sregs wanted;
  if (sregs.is_null || sregs.length < sizeof wanted) return false;
  memcpy(&wanted, sregs.data, sizeof wanted);
  constexpr uint64_t paging = uint64_t{1} << 31;
  constexpr uint64_t pae = 1 << 5;
  constexpr uint64_t long_mode = 1 << 10;
  return (wanted.cr0 & paging) != 0 && (wanted.cr4 & pae) != 0 && (wanted.efer & long_mode) == 0;
#else
  return false;
#endif
}

int64_t SetSregs(Environment& environment, OwnFd vcpu, Bytes sregs) {
  if (environment.mappings.IsServing() && ReadsMemory(sregs)) return -EDEADLK;
  return Structure(environment, vcpu, KVM_SET_SREGS, sregs, sizeof(kvm_sregs), Use::read_by_kernel);
}

int64_t OneReg(Environment& environment, OwnFd vcpu, unsigned long request, uint64_t id, Bytes value, Use use) {
  if (IsBusy(vcpu)) return -EBUSY;
  const uint64_t size = uint64_t{1} << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);
  const CallerBuffer buffer(environment.scratch, value, value.length >= size, use);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_one_reg reg = {};
  reg.id = id;
  reg.addr = AddressOf(buffer.address());
  return Ioctl(vcpu.number, request, &reg);
}

int64_t GetOneReg(Environment& environment, OwnFd vcpu, uint64_t id, Bytes value) {
  return OneReg(environment, vcpu, KVM_GET_ONE_REG, id, value, Use::filled_by_kernel);
}

int64_t SetOneReg(Environment& environment, OwnFd vcpu, uint64_t id, Bytes value) {
  return OneReg(environment, vcpu, KVM_SET_ONE_REG, id, value, Use::read_by_kernel);
}

int64_t GetMpState(Environment&, OwnFd vcpu) {
  if (IsBusy(vcpu)) return -EBUSY;
  kvm_mp_state state = {};
  const int64_t result = Ioctl(vcpu.number, KVM_GET_MP_STATE, &state);
  // s390x returns the state instead of filling it in.
  return result != 0 ? result : int64_t{state.mp_state};
}

int64_t SetMpState(Environment&, OwnFd vcpu, uint32_t value) {
  if (IsBusy(vcpu)) return -EBUSY;
  kvm_mp_state state = {};
  state.mp_state = value;
  return Ioctl(vcpu.number, KVM_SET_MP_STATE, &state);
}

}  // namespace

void ExportVcpu(Exports exports) {
  exports.Add<Run>("run");
  exports.AddAsync<RunAsync>("runAsync");
  exports.Add<Kick>("kick");
  exports.Add<Stop>("stop");
  exports.Add<GetRegs>("getRegs");
  exports.Add<SetRegs>("setRegs");
  exports.Add<GetSregs>("getSregs");
  exports.Add<SetSregs>("setSregs");
  exports.Add<GetOneReg>("getOneReg");
  exports.Add<SetOneReg>("setOneReg");
  exports.Add<GetMpState>("getMpState");
  exports.Add<SetMpState>("setMpState");
}

}  // namespace kvm_bridge
