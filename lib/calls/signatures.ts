import { checkKnown } from '../uapi/argument-errors.ts';
import type { KvmCalls, Ppc64Calls, S390xCalls, SharingCalls, X86_64Calls } from './kvm-calls.ts';
import { call, type Parameter, type ResultKind, type Signature } from './signature.ts';
import { USERFAULTFD } from './userfaultfd-calls.ts';

export type { Parameter, ParameterKind, ResultKind, Signature } from './signature.ts';

const ioctl = (request: string, parameters: readonly Parameter[], result: ResultKind = 'number'): Signature =>
  call(`ioctl(KVM_${request})`, parameters, result);

type CallsOf<T> = { [K in keyof T as T[K] extends (...args: never) => unknown ? K : never]: Signature };

export const SIGNATURES: Readonly<CallsOf<Omit<KvmCalls, 'x86_64' | 's390x' | 'ppc64' | 'sharing' | 'uffd'>>> = {
  openKvm: call('open(/dev/kvm)', [], { fd: 'kvm' }),
  close: call('close', [['fd', 'fd']]),
  getApiVersion: ioctl('GET_API_VERSION', [
    ['kvm', 'fd'],
    ['arg', 'u64'],
  ]),
  checkExtension: ioctl('CHECK_EXTENSION', [
    ['fd', 'fd'],
    ['cap', 'u64', 'CAP'],
  ]),
  createVm: ioctl(
    'CREATE_VM',
    [
      ['kvm', 'fd'],
      ['type', 'u64', 'VM_TYPE'],
    ],
    { fd: 'vm' },
  ),
  getVcpuMmapSize: ioctl('GET_VCPU_MMAP_SIZE', [
    ['kvm', 'fd'],
    ['arg', 'u64'],
  ]),
  enableCap: ioctl('ENABLE_CAP', [
    ['fd', 'fd'],
    ['cap', 'u32', 'CAP'],
    ['flags', 'x32'],
    ['args', 'u64s'],
  ]),
  createVcpu: ioctl(
    'CREATE_VCPU',
    [
      ['vm', 'fd'],
      ['id', 'u64'],
    ],
    { fd: 'vcpu' },
  ),
  ioctlUnchecked: call('ioctl', [
    ['fd', 'fd'],
    ['request', 'x32', 'REQUEST'],
    ['arg', 'arg'],
  ]),
  read: call('read', [
    ['fd', 'fd'],
    ['into', 'out'],
  ]),
  write: call('write', [
    ['fd', 'fd'],
    ['from', 'in'],
  ]),
  poll: {
    ...call('poll', [
      ['fd', 'fd'],
      ['events', 'x32'],
    ]),
    async: true,
  },
  setUserMemoryRegion: ioctl('SET_USER_MEMORY_REGION', [
    ['vm', 'fd'],
    ['slot', 'u32'],
    ['flags', 'x32', 'MEM'],
    ['gpa', 'x64'],
    ['size', 'x64'],
    ['hva', 'hva'],
  ]),
  setUserMemoryRegion2: ioctl('SET_USER_MEMORY_REGION2', [
    ['vm', 'fd'],
    ['slot', 'u32'],
    ['flags', 'x32', 'MEM'],
    ['gpa', 'x64'],
    ['size', 'x64'],
    ['hva', 'hva'],
    ['guestMemfd', 'fd'],
    ['guestMemfdOffset', 'x64'],
  ]),
  getDirtyLog: ioctl('GET_DIRTY_LOG', [
    ['vm', 'fd'],
    ['slot', 'u32'],
    ['bitmap', 'out'],
  ]),
  clearDirtyLog: ioctl('CLEAR_DIRTY_LOG', [
    ['vm', 'fd'],
    ['slot', 'u32'],
    ['firstPage', 'u64'],
    ['numPages', 'u32'],
    ['bitmap', 'in'],
  ]),
  resetDirtyRings: ioctl('RESET_DIRTY_RINGS', [['vm', 'fd']]),
  createGuestMemfd: ioctl(
    'CREATE_GUEST_MEMFD',
    [
      ['vm', 'fd'],
      ['size', 'x64'],
      ['flags', 'x64', 'GUEST_MEMFD_FLAG'],
    ],
    { fd: 'guest_memfd' },
  ),
  setMemoryAttributes: ioctl('SET_MEMORY_ATTRIBUTES', [
    ['vm', 'fd'],
    ['address', 'x64'],
    ['size', 'x64'],
    ['attributes', 'x64', 'MEMORY_ATTRIBUTE'],
    ['flags', 'x64'],
  ]),
  preFaultMemory: ioctl('PRE_FAULT_MEMORY', [
    ['vcpu', 'fd'],
    ['range', 'inout64'],
    ['flags', 'x64'],
  ]),
  setDeviceAttr: ioctl('SET_DEVICE_ATTR', [
    ['fd', 'fd'],
    ['group', 'u32'],
    ['attr', 'u64'],
    ['value', 'in'],
  ]),
  getDeviceAttr: ioctl('GET_DEVICE_ATTR', [
    ['fd', 'fd'],
    ['group', 'u32'],
    ['attr', 'u64'],
    ['value', 'out'],
  ]),
  hasDeviceAttr: ioctl('HAS_DEVICE_ATTR', [
    ['fd', 'fd'],
    ['group', 'u32'],
    ['attr', 'u64'],
  ]),
  eventfd: call('eventfd2', [['initial', 'u32']], { fd: 'eventfd' }),
  ioeventfd: ioctl('IOEVENTFD', [
    ['vm', 'fd'],
    ['addr', 'x64'],
    ['len', 'u32'],
    ['fd', 'fd'],
    ['flags', 'x32', 'IOEVENTFD'],
    ['datamatch', 'x64'],
  ]),
  irqfd: ioctl('IRQFD', [
    ['vm', 'fd'],
    ['fd', 'fd'],
    ['gsi', 'u32'],
    ['flags', 'x32', 'IRQFD'],
    ['resamplefd', 'fd'],
  ]),
  registerCoalescedMmio: ioctl('REGISTER_COALESCED_MMIO', [
    ['vm', 'fd'],
    ['addr', 'x64'],
    ['size', 'u32'],
    ['pio', 'u32'],
  ]),
  unregisterCoalescedMmio: ioctl('UNREGISTER_COALESCED_MMIO', [
    ['vm', 'fd'],
    ['addr', 'x64'],
    ['size', 'u32'],
    ['pio', 'u32'],
  ]),
  createIrqchip: ioctl('CREATE_IRQCHIP', [['vm', 'fd']]),
  run: ioctl('RUN', [
    ['vcpu', 'fd'],
    ['timeoutMs', 'u32'],
  ]),
  runAsync: { ...ioctl('RUN', [['vcpu', 'fd']]), async: true },
  kick: call('kick', [['vcpu', 'fd']]),
  stop: call('stop', [['vcpu', 'fd']]),
  getRegs: ioctl('GET_REGS', [
    ['vcpu', 'fd'],
    ['regs', 'out'],
  ]),
  setRegs: ioctl('SET_REGS', [
    ['vcpu', 'fd'],
    ['regs', 'in'],
  ]),
  getSregs: ioctl('GET_SREGS', [
    ['vcpu', 'fd'],
    ['sregs', 'out'],
  ]),
  setSregs: ioctl('SET_SREGS', [
    ['vcpu', 'fd'],
    ['sregs', 'in'],
  ]),
  getOneReg: ioctl('GET_ONE_REG', [
    ['vcpu', 'fd'],
    ['id', 'x64'],
    ['value', 'out'],
  ]),
  setOneReg: ioctl('SET_ONE_REG', [
    ['vcpu', 'fd'],
    ['id', 'x64'],
    ['value', 'in'],
  ]),
  getMpState: ioctl('GET_MP_STATE', [['vcpu', 'fd']]),
  setMpState: ioctl('SET_MP_STATE', [
    ['vcpu', 'fd'],
    ['state', 'u32'],
  ]),
  mmap: call(
    'mmap',
    [
      ['length', 'x64'],
      ['prot', 'x32', 'PROT'],
      ['flags', 'x32', 'MAP'],
      ['fd', 'fd'],
      ['offset', 'x64'],
      ['align', 'x64'],
      ['alignOffset', 'x64'],
    ],
    'hva',
  ),
  mmapFixed: call('mmap', [
    ['hva', 'hva'],
    ['length', 'x64'],
    ['prot', 'x32', 'PROT'],
    ['flags', 'x32', 'MAP'],
    ['fd', 'fd'],
    ['offset', 'x64'],
  ]),
  munmap: call('munmap', [
    ['hva', 'hva'],
    ['length', 'x64'],
  ]),
  mprotect: call('mprotect', [
    ['hva', 'hva'],
    ['length', 'x64'],
    ['prot', 'x32', 'PROT'],
  ]),
  madvise: call('madvise', [
    ['hva', 'hva'],
    ['length', 'x64'],
    ['advice', 'u32', 'MADV'],
  ]),
  fallocate: call('fallocate', [
    ['fd', 'fd'],
    ['mode', 'x32', 'FALLOC'],
    ['offset', 'x64'],
    ['length', 'x64'],
  ]),
  memfdCreate: call(
    'memfd_create',
    [
      ['name', 'text'],
      ['size', 'x64'],
      ['flags', 'x32'],
    ],
    { fd: 'memfd' },
  ),
  view: call(
    'view',
    [
      ['hva', 'hva'],
      ['length', 'u64'],
    ],
    'memory',
  ),
  window: call(
    'window',
    [
      ['hva', 'hva'],
      ['length', 'u64'],
    ],
    'memory',
  ),
  vmap: call(
    'vmap',
    [
      ['hva', 'hva'],
      ['length', 'u64'],
    ],
    'memory',
  ),
  vunmap: call('vunmap', [['bytes', 'view']]),
  readMemory: call('process_vm_readv', [
    ['hva', 'hva'],
    ['into', 'out'],
  ]),
  writeMemory: call('process_vm_writev', [
    ['hva', 'hva'],
    ['from', 'in'],
  ]),
  gather: call('gather', [
    ['hvas', 'hvas'],
    ['lengths', 'u32s'],
    ['into', 'out'],
  ]),
  scatter: call('scatter', [
    ['hvas', 'hvas'],
    ['lengths', 'u32s'],
    ['from', 'in'],
  ]),
};

const X86_64: Readonly<CallsOf<X86_64Calls>> = {
  setTssAddr: ioctl('SET_TSS_ADDR', [
    ['vm', 'fd'],
    ['addr', 'x64'],
  ]),
  setIdentityMapAddr: ioctl('SET_IDENTITY_MAP_ADDR', [
    ['vm', 'fd'],
    ['addr', 'x64'],
  ]),
};

const S390X: Readonly<CallsOf<S390xCalls>> = {
  memOp: ioctl('S390_MEM_OP', [
    ['fd', 'fd'],
    ['op', 'u32', 'MEMOP'],
    ['gaddr', 'x64'],
    ['size', 'u32'],
    ['flags', 'x64', 'MEMOP_FLAG'],
    ['buf', 'inout'],
    ['ar', 'u32'],
    ['key', 'u32'],
    ['oldValue', 'inout'],
    ['sidaOffset', 'u32'],
  ]),
  getSkeys: ioctl('S390_GET_SKEYS', [
    ['vm', 'fd'],
    ['startGfn', 'x64'],
    ['count', 'u64'],
    ['flags', 'x32'],
    ['keys', 'out'],
  ]),
  setSkeys: ioctl('S390_SET_SKEYS', [
    ['vm', 'fd'],
    ['startGfn', 'x64'],
    ['count', 'u64'],
    ['flags', 'x32'],
    ['keys', 'in'],
  ]),
  keyOp: ioctl('S390_KEYOP', [
    ['vm', 'fd'],
    ['guestAddr', 'x64'],
    ['operation', 'u32', 'KEYOP'],
    ['key', 'inout'],
  ]),
  getCmmaBits: ioctl('S390_GET_CMMA_BITS', [
    ['vm', 'fd'],
    ['log', 'inout64'],
    ['flags', 'x32'],
    ['values', 'out'],
  ]),
  setCmmaBits: ioctl('S390_SET_CMMA_BITS', [
    ['vm', 'fd'],
    ['startGfn', 'x64'],
    ['count', 'u32'],
    ['flags', 'x32'],
    ['mask', 'x64'],
    ['values', 'in'],
  ]),
  ucasMap: ioctl('S390_UCAS_MAP', [
    ['vcpu', 'fd'],
    ['userAddr', 'hva'],
    ['vcpuAddr', 'x64'],
    ['length', 'x64'],
  ]),
  ucasUnmap: ioctl('S390_UCAS_UNMAP', [
    ['vcpu', 'fd'],
    ['userAddr', 'hva'],
    ['vcpuAddr', 'x64'],
    ['length', 'x64'],
  ]),
  vcpuFault: ioctl('S390_VCPU_FAULT', [
    ['vcpu', 'fd'],
    ['addr', 'x64'],
  ]),
  initialReset: ioctl('S390_INITIAL_RESET', [['vcpu', 'fd']]),
  normalReset: ioctl('S390_NORMAL_RESET', [['vcpu', 'fd']]),
  clearReset: ioctl('S390_CLEAR_RESET', [['vcpu', 'fd']]),
  setInitialPsw: ioctl('S390_SET_INITIAL_PSW', [
    ['vcpu', 'fd'],
    ['mask', 'x64'],
    ['addr', 'x64'],
  ]),
};

const PPC64: Readonly<CallsOf<Ppc64Calls>> = {
  allocateHtab: ioctl('PPC_ALLOCATE_HTAB', [
    ['vm', 'fd'],
    ['order', 'u32'],
  ]),
  getHtabFd: ioctl(
    'PPC_GET_HTAB_FD',
    [
      ['vm', 'fd'],
      ['flags', 'x64', 'HTAB'],
      ['startIndex', 'u64'],
    ],
    { fd: 'htab' },
  ),
  resizeHptPrepare: ioctl('PPC_RESIZE_HPT_PREPARE', [
    ['vm', 'fd'],
    ['flags', 'x64'],
    ['shift', 'u32'],
  ]),
  resizeHptCommit: ioctl('PPC_RESIZE_HPT_COMMIT', [
    ['vm', 'fd'],
    ['flags', 'x64'],
    ['shift', 'u32'],
  ]),
  getSmmuInfo: ioctl('PPC_GET_SMMU_INFO', [
    ['vm', 'fd'],
    ['info', 'out'],
  ]),
  configureV3Mmu: ioctl('PPC_CONFIGURE_V3_MMU', [
    ['vm', 'fd'],
    ['flags', 'x64'],
    ['processTable', 'x64'],
  ]),
};

const SHARING: Readonly<CallsOf<SharingCalls>> = {
  socketPair: call('socketpair', [
    ['type', 'u32'],
    ['fds', 'outfds'],
  ]),
  socketListen: call(
    'listen',
    [
      ['path', 'text'],
      ['type', 'u32'],
      ['backlog', 'u32'],
    ],
    { fd: 'socket' },
  ),
  socketConnect: call(
    'connect',
    [
      ['path', 'text'],
      ['type', 'u32'],
    ],
    { fd: 'socket' },
  ),
  socketAccept: call('accept', [['listener', 'fd']], { fd: 'socket' }),
  sendMessage: call('sendmsg', [
    ['socket', 'fd'],
    ['bytes', 'in'],
    ['fds', 'fds'],
  ]),
  receiveMessage: call('recvmsg', [
    ['socket', 'fd'],
    ['into', 'out'],
    ['fds', 'outfds'],
  ]),
  peerCredentials: call('getsockopt(SO_PEERCRED)', [
    ['socket', 'fd'],
    ['into', 'u32s'],
  ]),
  duplicate: call('fcntl(F_DUPFD_CLOEXEC)', [['fd', 'fd']], { fd: 'duplicate' }),
  getSeals: call('fcntl(F_GET_SEALS)', [['fd', 'fd']]),
  addSeals: call('fcntl(F_ADD_SEALS)', [
    ['fd', 'fd'],
    ['seals', 'x32'],
  ]),
  reopen: call('open', [['fd', 'fd']], { fd: 'reopened' }),
  lockRange: call('fcntl(F_OFD_SETLK)', [
    ['fd', 'fd'],
    ['start', 'x64'],
    ['length', 'x64'],
  ]),
  unlockRange: call('fcntl(F_OFD_SETLK)', [
    ['fd', 'fd'],
    ['start', 'x64'],
    ['length', 'x64'],
  ]),
  isLocked: call('fcntl(F_OFD_GETLK)', [
    ['fd', 'fd'],
    ['start', 'x64'],
    ['length', 'x64'],
  ]),
};

/** The calls that not every machine has, by the group of {@link KvmCalls} they are in. */
export const GROUP_SIGNATURES = {
  x86_64: X86_64,
  s390x: S390X,
  ppc64: PPC64,
  sharing: SHARING,
  uffd: USERFAULTFD,
} as const;

export type CallGroup = keyof typeof GROUP_SIGNATURES;

/** The name of any call, of a group's too: no two have the same. */
export type CallName = keyof typeof SIGNATURES | { [G in CallGroup]: keyof (typeof GROUP_SIGNATURES)[G] }[CallGroup];

const BY_NAME: Readonly<Record<CallName, Signature>> = {
  ...SIGNATURES,
  ...X86_64,
  ...S390X,
  ...PPC64,
  ...SHARING,
  ...USERFAULTFD,
};

/** What the kernel's users call a call, for errors: `ioctl(KVM_RUN)`. */
export const syscallOf = (name: CallName): string => BY_NAME[checkKnown(name, 'name', BY_NAME)].syscall;

export const CALL_GROUPS = Object.keys(GROUP_SIGNATURES) as readonly CallGroup[];

/** Signatures of one group, or the common ones for `undefined`, as a plain map for code that walks them. */
export function signaturesOf(group: CallGroup | undefined): Readonly<Record<string, Signature>> {
  return group === undefined ? SIGNATURES : GROUP_SIGNATURES[checkKnown(group, 'group', GROUP_SIGNATURES)];
}
