import { type Arch, isLittleEndianHost } from '../uapi/arch.ts';
import { EXIT, exitName } from '../uapi/flags.ts';
import { type RequestName, requestName } from '../uapi/requests.ts';
import {
  IO_DIRECTION,
  KVM_PPC_COMPAT_CAPS,
  KVM_RUN,
  KVM_RUN_S390X,
  KVM_S390_KEYOP,
  PAPR_HCALL_ARGS,
} from '../uapi/structs.ts';
import { type SymbolSet, symbolic } from '../uapi/symbols.ts';
import {
  UFFDIO_API,
  UFFDIO_REGISTER,
  UFFDIO_RWPROTECT,
  UFFDIO_SET_MODE,
  UFFDIO_WRITEPROTECT,
} from '../uapi/userfaultfd.ts';

/** Where a field of a structure is, its bytes, and the names of its values or bits, where there are some. */
type Field = readonly [offset: number, bytes: 1 | 2 | 4 | 8, symbols?: SymbolSet];
type Fields = Readonly<Record<string, Field>>;

const u8 = (offset: number): Field => [offset, 1];
const u16 = (offset: number): Field => [offset, 2];
const u32 = (offset: number): Field => [offset, 4];
const u64 = (offset: number, symbols?: SymbolSet): Field =>
  symbols === undefined ? [offset, 8] : [offset, 8, symbols];

const { arm_nisv, arm_sea, fail_entry, io, internal, memory_fault, mmio, papr_hcall, snp_req_certs, tdx } = KVM_RUN;
const NISV: Fields = { esr_iss: u64(arm_nisv.esr_iss), fault_ipa: u64(arm_nisv.fault_ipa) };

/** What `kvm_run` says of an exit, for those that say something we know. */
const EXITS: Readonly<Record<number, Fields>> = {
  [EXIT.IO]: { port: u16(io.port), size: u8(io.size), count: u32(io.count) },
  [EXIT.MMIO]: { phys_addr: u64(mmio.phys_addr), len: u32(mmio.len) },
  [EXIT.MEMORY_FAULT]: {
    flags: u64(memory_fault.flags, 'MEMORY_EXIT_FLAG'),
    gpa: u64(memory_fault.gpa),
    size: u64(memory_fault.size),
  },
  [EXIT.INTERNAL_ERROR]: { suberror: u32(internal.suberror) },
  [EXIT.FAIL_ENTRY]: { hardware_entry_failure_reason: u64(fail_entry.reason), cpu: u32(fail_entry.cpu) },
  [EXIT.PAPR_HCALL]: {
    nr: u64(papr_hcall.nr),
    ...Object.fromEntries(Array.from({ length: PAPR_HCALL_ARGS }, (_, i) => [`arg${i}`, u64(papr_hcall.args + 8 * i)])),
  },
  [EXIT.S390_SIEIC]: {
    icptcode: u8(KVM_RUN_S390X.s390_sieic.icptcode),
    ipa: u16(KVM_RUN_S390X.s390_sieic.ipa),
    ipb: u32(KVM_RUN_S390X.s390_sieic.ipb),
  },
  [EXIT.ARM_NISV]: NISV,
  [EXIT.ARM_LDST64B]: NISV,
  [EXIT.ARM_SEA]: {
    flags: u64(arm_sea.flags, 'ARM_SEA'),
    esr: u64(arm_sea.esr),
    gva: u64(arm_sea.gva),
    gpa: u64(arm_sea.gpa),
  },
  [EXIT.SNP_REQ_CERTS]: { gpa: u64(snp_req_certs.gpa), npages: u64(snp_req_certs.npages), ret: u64(snp_req_certs.ret) },
  [EXIT.TDX]: { flags: u64(tdx.flags), nr: u64(tdx.nr), ret: u64(tdx.ret) },
};

/** The structures behind requests that have no call of their own, and that a trace shows by their fields. */
const REQUESTS: Readonly<Partial<Record<RequestName, Fields>>> = {
  KVM_S390_KEYOP: {
    guest_addr: u64(KVM_S390_KEYOP.guest_addr),
    key: u8(KVM_S390_KEYOP.key),
    operation: [KVM_S390_KEYOP.operation, 1, 'KEYOP'],
  },
  KVM_PPC_GET_COMPAT_CAPS: {
    size: u64(KVM_PPC_COMPAT_CAPS.size),
    flags: u64(KVM_PPC_COMPAT_CAPS.flags),
    compat_capabilities: u64(KVM_PPC_COMPAT_CAPS.compat_capabilities, 'PPC_COMPAT_CAP'),
  },
  UFFDIO_API: {
    api: u64(UFFDIO_API.api),
    features: u64(UFFDIO_API.features, 'UFFD_FEATURE'),
    ioctls: u64(UFFDIO_API.ioctls),
  },
  UFFDIO_REGISTER: {
    start: u64(UFFDIO_REGISTER.start),
    len: u64(UFFDIO_REGISTER.len),
    mode: u64(UFFDIO_REGISTER.mode, 'UFFDIO_REGISTER_MODE'),
    ioctls: u64(UFFDIO_REGISTER.ioctls),
  },
  UFFDIO_WRITEPROTECT: {
    start: u64(UFFDIO_WRITEPROTECT.start),
    len: u64(UFFDIO_WRITEPROTECT.len),
    mode: u64(UFFDIO_WRITEPROTECT.mode, 'UFFDIO_WRITEPROTECT_MODE'),
  },
  UFFDIO_RWPROTECT: {
    start: u64(UFFDIO_RWPROTECT.start),
    len: u64(UFFDIO_RWPROTECT.len),
    mode: u64(UFFDIO_RWPROTECT.mode, 'UFFDIO_RWPROTECT_MODE'),
  },
  UFFDIO_SET_MODE: {
    enable: u64(UFFDIO_SET_MODE.enable, 'UFFD_FEATURE'),
    disable: u64(UFFDIO_SET_MODE.disable, 'UFFD_FEATURE'),
  },
};

/** Bytes of `kvm_run` that {@link exitText} looks at. */
export const EXIT_BYTES = KVM_RUN.kvm_valid_regs;

/** The exit that `kvm_run` describes, with its fields where they are known: `MMIO phys_addr 0xd0000000 len 4 is_write 1 data 78563412`. */
export function exitText(run: Uint8Array, arch: Arch): string {
  const reason = new DataView(run.buffer, run.byteOffset).getUint32(KVM_RUN.exit_reason, isLittleEndianHost(arch));
  const fields = EXITS[reason];
  return [
    exitName(reason),
    ...(fields === undefined ? [] : fieldTexts(fields, run, arch)),
    ...accessTexts(reason, run),
  ].join(' ');
}

/** Which way an access goes, and what is stored. */
function accessTexts(reason: number, run: Uint8Array): string[] {
  if (reason === EXIT.IO) return [run[io.direction] === IO_DIRECTION.OUT ? 'out' : 'in'];
  if (reason !== EXIT.MMIO) return [];
  const isWrite = run[mmio.is_write] !== 0;
  const data = Buffer.from(run.subarray(mmio.data, mmio.data + 8)).toString('hex');
  return isWrite ? ['is_write 1', `data ${data}`] : ['is_write 0'];
}

/** The structure of a request by its fields, `{start 0x1000 len 0x2000 mode RWP}`; undefined where it isn't known or cut off. */
export function structureText(request: unknown, bytes: Uint8Array, arch: Arch): string | undefined {
  const name = typeof request === 'number' ? requestName(request, arch) : undefined;
  const fields = name === undefined ? undefined : REQUESTS[name];
  if (fields === undefined || Object.values(fields).some(([offset, size]) => offset + size > bytes.length))
    return undefined;
  return `{${fieldTexts(fields, bytes, arch).join(' ')}}`;
}

function fieldTexts(fields: Fields, bytes: Uint8Array, arch: Arch): string[] {
  return Object.entries(fields).map(([name, [offset, size, symbols]]) => {
    const value = unsigned(bytes, offset, size, arch);
    return `${name} ${symbols === undefined ? `0x${value.toString(16)}` : symbolic(symbols, value, arch)}`;
  });
}

function unsigned(bytes: Uint8Array, offset: number, size: number, arch: Arch): bigint {
  const field = bytes.slice(offset, offset + size);
  return BigInt(`0x${Buffer.from(isLittleEndianHost(arch) ? field.reverse() : field).toString('hex')}`);
}
