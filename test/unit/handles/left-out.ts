const MADE_BY_US = 'made by the package, for `instanceof`; nobody calls its constructor';
const TAKES_NOTHING = 'no method of it takes arguments';
const FLAT = 'the flat calls, whose arguments test/unit/calls/checked.test.ts attacks on both kernels';
const OURS = 'what a user may see, and only the package calls';
/** Attacked where there is the addon, by the tests of these names, which look that none is missing. */
export const SHARING = 'test/unit/sharing/wrong-arguments.test.ts';
export const VHOST_USER = 'test/unit/vhost-user/wrong-arguments.test.ts';

/** What the attack leaves out, and why. A class stands for its statics, constructor and methods. */
export const LEFT_OUT: Readonly<Record<string, string>> = {
  KvmError: MADE_BY_US,
  ProgramInterruption: MADE_BY_US,
  HandlerError: MADE_BY_US,
  GuestFault: MADE_BY_US,
  HtabStreamError: MADE_BY_US,
  Translated: MADE_BY_US,
  DatResult: TAKES_NOTHING,
  DatTranslation: TAKES_NOTHING,
  Registration: 'made by the package; close takes no arguments',
  loadNative: 'takes no arguments',
  'EmulatedKernel.calls': FLAT,
  KernelCore: FLAT,
  EmulatedProcess: FLAT,
  ExplainedHashTranslation: TAKES_NOTHING,
  HtabChunkBytes: TAKES_NOTHING,
  MemoryWindow: TAKES_NOTHING,
  AttachedVm: OURS,
  WrittenPages: OURS,
  Handle: 'what all handles have; the faces of each say so',
  Descriptor: SHARING,
  GuestBinding: SHARING,
  SharedDirtyLog: SHARING,
  UnixConnection: SHARING,
  UnixListener: SHARING,
  Vmap: SHARING,
  BlockDevice: VHOST_USER,
  BlockDriver: VHOST_USER,
  Chain: VHOST_USER,
  DeviceQueue: VHOST_USER,
  DriverQueue: VHOST_USER,
  NetworkDevice: VHOST_USER,
  PageLog: VHOST_USER,
  VhostUserBackEnd: VHOST_USER,
  VhostUserFrontEnd: VHOST_USER,
  VirtioMmio: VHOST_USER,
  layOut: VHOST_USER,
};
