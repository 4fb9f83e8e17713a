// What only s390x has: MEM_OP, storage keys, CMMA, user-controlled VMs, resets.
#if defined(__s390x__)

#include "call.h"
#include "kvm_abi.h"

namespace kvm_bridge {
namespace {

using Use = CallerBuffer::Use;

// struct kvm_s390_mem_op with the fields of 6.3.
struct MemOp {
  uint64_t gaddr;
  uint64_t flags;
  uint32_t size;
  uint32_t op;
  uint64_t buf;
  union {
    struct {
      uint8_t ar;
      uint8_t key;
      uint8_t pad[6];
      uint64_t old_addr;
    } access;
    uint32_t sida_offset;
    uint8_t reserved[32];
  };
};
static_assert(sizeof(MemOp) == 64, "layout of the uAPI");

struct KeyOp {
  uint64_t guest_addr;
  uint8_t key;
  uint8_t operation;
  uint8_t pad[6];
};
static_assert(sizeof(KeyOp) == 16, "layout of the uAPI");

constexpr unsigned long kKeyOp = _IOWR(KVMIO, 0x53, KeyOp);

constexpr uint32_t kSidaRead = 2;
constexpr uint32_t kSidaWrite = 3;

int64_t MemOpCall(Environment& environment, OwnFd fd, uint32_t op, uint64_t gaddr, uint32_t size, uint64_t flags,
                  Bytes buf, uint8_t ar, uint8_t key, Bytes old_value, uint32_t sida_offset) {
  if (IsBusy(fd)) return -EBUSY;
  if (environment.mappings.IsServing()) return -EDEADLK;
  const CallerBuffer buffer(environment.scratch, buf, buf.length >= size, Use::filled_by_kernel);
  const CallerBuffer old(environment.second_scratch, old_value, old_value.length >= size, Use::filled_by_kernel);
  if (!buffer.has_memory() || !old.has_memory()) return -ENOMEM;
  MemOp mem_op = {};
  mem_op.gaddr = gaddr;
  mem_op.flags = flags;
  mem_op.size = size;
  mem_op.op = op;
  mem_op.buf = AddressOf(buffer.address());
  if (op == kSidaRead || op == kSidaWrite) {
    mem_op.sida_offset = sida_offset;
  } else {
    mem_op.access.ar = ar;
    mem_op.access.key = key;
    mem_op.access.old_addr = AddressOf(old.address());
  }
  return Ioctl(fd.number, KVM_S390_MEM_OP, &mem_op);
}

int64_t Skeys(Environment& environment, OwnFd vm, unsigned long request, uint64_t start_gfn, uint64_t count,
              uint32_t flags, Bytes keys, Use use) {
  if (environment.mappings.IsServing()) return -EDEADLK;
  const CallerBuffer buffer(environment.scratch, keys, keys.length >= count, use);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_s390_skeys skeys = {};
  skeys.start_gfn = start_gfn;
  skeys.count = count;
  skeys.skeydata_addr = AddressOf(buffer.address());
  skeys.flags = flags;
  return Ioctl(vm.number, request, &skeys);
}

int64_t GetSkeys(Environment& environment, OwnFd vm, uint64_t start_gfn, uint64_t count, uint32_t flags, Bytes keys) {
  return Skeys(environment, vm, KVM_S390_GET_SKEYS, start_gfn, count, flags, keys, Use::filled_by_kernel);
}

int64_t SetSkeys(Environment& environment, OwnFd vm, uint64_t start_gfn, uint64_t count, uint32_t flags, Bytes keys) {
  return Skeys(environment, vm, KVM_S390_SET_SKEYS, start_gfn, count, flags, keys, Use::read_by_kernel);
}

int64_t KeyOpCall(Environment& environment, OwnFd vm, uint64_t guest_addr, uint8_t operation, Array<uint8_t> key) {
  if (environment.mappings.IsServing()) return -EDEADLK;
  if (key.length < 1) return -EFAULT;
  KeyOp key_op = {};
  key_op.guest_addr = guest_addr;
  key_op.key = key.data[0];
  key_op.operation = operation;
  const int64_t result = Ioctl(vm.number, kKeyOp, &key_op);
  key.data[0] = key_op.key;
  return result;
}

int64_t GetCmmaBits(Environment& environment, OwnFd vm, Array<uint64_t> log, uint32_t flags, Bytes values) {
  if (log.length < 3) return -EFAULT;
  const uint64_t count = ReadOnce(&log.data[1]);
  // The field has 32 bits.
  if (count > UINT32_MAX) return -EINVAL;
  const CallerBuffer buffer(environment.scratch, values, values.length >= count, Use::filled_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_s390_cmma_log cmma = {};
  cmma.start_gfn = log.data[0];
  cmma.count = static_cast<uint32_t>(count);
  cmma.flags = flags;
  cmma.remaining = log.data[2];
  cmma.values = AddressOf(buffer.address());
  const int64_t result = Ioctl(vm.number, KVM_S390_GET_CMMA_BITS, &cmma);
  log.data[0] = cmma.start_gfn;
  log.data[1] = cmma.count;
  log.data[2] = cmma.remaining;
  return result;
}

int64_t SetCmmaBits(Environment& environment, OwnFd vm, uint64_t start_gfn, uint32_t count, uint32_t flags,
                    uint64_t mask, Bytes values) {
  const CallerBuffer buffer(environment.scratch, values, values.length >= count, Use::read_by_kernel);
  if (!buffer.has_memory()) return -ENOMEM;
  kvm_s390_cmma_log cmma = {};
  cmma.start_gfn = start_gfn;
  cmma.count = count;
  cmma.flags = flags;
  cmma.mask = mask;
  cmma.values = AddressOf(buffer.address());
  return Ioctl(vm.number, KVM_S390_SET_CMMA_BITS, &cmma);
}

int64_t Ucas(OwnFd vcpu, unsigned long request, uint64_t user_addr, uint64_t vcpu_addr, uint64_t length) {
  if (IsBusy(vcpu)) return -EBUSY;
  kvm_s390_ucas_mapping mapping = {};
  mapping.user_addr = user_addr;
  mapping.vcpu_addr = vcpu_addr;
  mapping.length = length;
  return Ioctl(vcpu.number, request, &mapping);
}

int64_t UcasMap(Environment&, OwnFd vcpu, uint64_t user_addr, uint64_t vcpu_addr, uint64_t length) {
  return Ucas(vcpu, KVM_S390_UCAS_MAP, user_addr, vcpu_addr, length);
}

int64_t UcasUnmap(Environment&, OwnFd vcpu, uint64_t user_addr, uint64_t vcpu_addr, uint64_t length) {
  return Ucas(vcpu, KVM_S390_UCAS_UNMAP, user_addr, vcpu_addr, length);
}

int64_t VcpuFault(Environment& environment, OwnFd vcpu, uint64_t addr) {
  if (environment.mappings.IsServing()) return -EDEADLK;
  return IsBusy(vcpu) ? -EBUSY : Ioctl(vcpu.number, KVM_S390_VCPU_FAULT, addr);
}

int64_t InitialReset(Environment&, OwnFd vcpu) {
  return IsBusy(vcpu) ? -EBUSY : Ioctl(vcpu.number, KVM_S390_INITIAL_RESET);
}

int64_t NormalReset(Environment&, OwnFd vcpu) {
  return IsBusy(vcpu) ? -EBUSY : Ioctl(vcpu.number, KVM_S390_NORMAL_RESET);
}

int64_t ClearReset(Environment&, OwnFd vcpu) {
  return IsBusy(vcpu) ? -EBUSY : Ioctl(vcpu.number, KVM_S390_CLEAR_RESET);
}

int64_t SetInitialPsw(Environment&, OwnFd vcpu, uint64_t mask, uint64_t addr) {
  if (IsBusy(vcpu)) return -EBUSY;
  kvm_s390_psw psw = {};
  psw.mask = mask;
  psw.addr = addr;
  return Ioctl(vcpu.number, KVM_S390_SET_INITIAL_PSW, &psw);
}

}  // namespace

const char* const kArch = "s390x";

void ExportArchitecture(Exports exports) {
  Exports group = exports.Group("s390x");
  group.Add<MemOpCall>("memOp");
  group.Add<GetSkeys>("getSkeys");
  group.Add<SetSkeys>("setSkeys");
  group.Add<KeyOpCall>("keyOp");
  group.Add<GetCmmaBits>("getCmmaBits");
  group.Add<SetCmmaBits>("setCmmaBits");
  group.Add<UcasMap>("ucasMap");
  group.Add<UcasUnmap>("ucasUnmap");
  group.Add<VcpuFault>("vcpuFault");
  group.Add<InitialReset>("initialReset");
  group.Add<NormalReset>("normalReset");
  group.Add<ClearReset>("clearReset");
  group.Add<SetInitialPsw>("setInitialPsw");
}

}  // namespace kvm_bridge

#endif
