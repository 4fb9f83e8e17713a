// An s390x guest's virtual memory: read and written through its page tables by the kernel, with storage keys.
import { addressSpaceRanges, dumpMemory, dumpStorageKeys, formatRange, Kvm, ProgramInterruption } from 'kvm-bridge';

const SEGMENT_TABLE = 0x10_0000;
const PAGE_TABLE = 0x11_0000;
const DATA = 0x18_0000;
const PROTECTED = 0x200n;

// Emulated, on whatever machine this is; on a real s390x host the same lines drive its kernel.
const kvm = Kvm.open({ backend: 'emulated', arch: 's390x' });
const vm = kvm.createVm();
const vcpu = vm.createVcpu();

// DAT on, 64-bit addresses, primary space from CR1. KVM_RUN takes the PSW over, and gives EFAULT as there is no memory yet.
vcpu.s390x.setRegs({ pswMask: 0x0400_0001_8000_0000n, cr1: SEGMENT_TABLE });
try {
  vcpu.runSync({ timeoutMs: 100 });
} catch (error) {
  console.log(`registers taken over (${error.code})`);
}

vm.memory.addRam(0, kvm.mapAnonymous(4 << 20));
for (let i = 0; i < 512; i++) vm.memory.writeU64(SEGMENT_TABLE + i * 8, i === 1 ? BigInt(PAGE_TABLE) : 0x20n);
for (let i = 0; i < 256; i++) vm.memory.writeU64(PAGE_TABLE + i * 8, 0x400n);
vm.memory.writeU64(PAGE_TABLE, BigInt(DATA + 0x1000));
vm.memory.writeU64(PAGE_TABLE + 8, BigInt(DATA));
vm.memory.writeU64(PAGE_TABLE + 16, BigInt(DATA) | PROTECTED);
for (const range of addressSpaceRanges(vcpu)) console.log(formatRange(range));

// Across two pages that lie the other way round in storage.
vcpu.memOp.write(0x10_0ffa, Buffer.from('Hello, s390x'), { key: 0 });
console.log(Buffer.from(vcpu.memOp.read(0x10_0ffa, 12, { key: 0 })).toString());

// What the guest's CPU would see is thrown, with the reason.
const attempt = (what) => {
  try {
    what();
  } catch (error) {
    if (!(error instanceof ProgramInterruption)) throw error;
    console.log(`\n${error.message}${error.walk === undefined ? '' : `\n${error.walk}`}`);
  }
};
attempt(() => vcpu.memOp.write(0x10_2000, Buffer.from('no'), { key: 0 }));
attempt(() => vcpu.memOp.read(0x10_5000, 8, { key: 0 }));

vm.storageKeys.set(DATA >> 12, [{ acc: 3, fetchProtection: true, reference: false, change: false }]);
attempt(() => vcpu.memOp.read(0x10_1000, 8, { key: 4 }));

// The whole guest: its keys as text, its memory as runs of bytes.
const keys = [...dumpStorageKeys(vm)];
console.log(`\n${keys.length} keys, of which not 0:\n${keys.filter((line) => !line.includes('key(0)')).join('\n')}`);
let used = 0;
for (const { bytes } of dumpMemory(vm)) if (bytes.some((byte) => byte !== 0)) used += bytes.length;
console.log(`${used / 1024} KiB of memory in runs that are not all zeros`);

vm.close();
kvm.close();
