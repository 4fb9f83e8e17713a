// The addon without TypeScript: these programs run as plain processes and workers.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const built = fileURLToPath(new URL('../../../../build/Release/kvm_bridge.node', import.meta.url));

/** @type {import('../../../../lib/calls/kvm-calls.ts').KvmCalls} */
export const calls = createRequire(import.meta.url)(process.env.KVM_BRIDGE_ADDON || built);

const RW = 3;
const SHARED = 1;
const ANONYMOUS = 0x22;
const RAM_BYTES = 0x10000;
const CODE = 0x1000;
const RIP = 128;
const RFLAGS = 136;

/** A vCPU that executes 16-bit code until somebody gets it out; `jmp $` unless told otherwise. */
export function spinningVcpu(code = [0xeb, 0xfe]) {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const ram = calls.mmap(RAM_BYTES, RW, ANONYMOUS, -1, 0, 0, 0);
  calls.writeMemory(ram + CODE, Uint8Array.from(code));
  calls.setUserMemoryRegion(vm, 0, 0, 0, RAM_BYTES, ram);
  const vcpu = calls.createVcpu(vm, 0);
  const runBytes = calls.getVcpuMmapSize(kvm, 0);
  const runHva = calls.mmap(runBytes, RW, SHARED, vcpu, 0, 0, 0);
  const run = calls.view(runHva, runBytes);
  const sregs = new Uint8Array(312);
  calls.getSregs(vcpu, sregs);
  sregs.fill(0, 0, 8);
  sregs.fill(0, 12, 14);
  calls.setSregs(vcpu, sregs);
  const regs = new DataView(new ArrayBuffer(144));
  regs.setBigUint64(RIP, BigInt(CODE), true);
  regs.setBigUint64(RFLAGS, 2n, true);
  calls.setRegs(vcpu, new Uint8Array(regs.buffer));
  const release = () => {
    calls.munmap(runHva, runBytes);
    calls.munmap(ram, RAM_BYTES);
  };
  return { kvm, vm, vcpu, run: new DataView(run), release };
}
