const MADE_BY_US = 'made by the package, for `instanceof`; nobody calls its constructor';
const UFFD =
  'needs the right to a userfaultfd; its own tests (memory/page-faults, memory/tracked-writes) give it bad ones';
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
  DatResult: 'has no methods and takes no arguments',
  DatTranslation: 'has no methods and takes no arguments',
  Registration: 'made by the package; close takes no arguments',
  loadNative: 'takes no arguments',
  'EmulatedKernel.calls': 'the flat calls, whose arguments test/unit/calls/checked.test.ts attacks on both kernels',
  PageFaults: UFFD,
  TrackedWrites: UFFD,
  Descriptor: SHARING,
  SharedDirtyLog: SHARING,
  UnixConnection: SHARING,
  UnixListener: SHARING,
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
