import type { HtabLoops } from '../arch/ppc64/model/htab-loops.ts';
import type { X86_64Build } from '../arch/x86_64/emulated/build.ts';
import { checkCallback, checkInteger, checkObject, checkOneOf, checkOptions, checkText } from '../base/arguments.ts';
import { KvmError, outOfRange } from '../base/errors.ts';
import { checked } from '../calls/checked.ts';
import { callError } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { traced } from '../calls/recorder.ts';
import { recorded } from '../calls/trace-recorder.ts';
import { checkCalls } from '../calls/wrapped.ts';
import { ARCHES, type Arch, archOfNode } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { API_VERSION } from '../uapi/flags.ts';
import { EmulatedKernel } from './emulated.ts';
import { emulationOf } from './emulation.ts';
import { loadNative } from './native.ts';

export interface OpenOptions {
  /** The real kernel, the emulated one, or (`auto`, the default) the real one where it can be used. */
  readonly backend?: 'native' | 'emulated' | 'auto';
  /** Architecture; this machine's by default. Another than the host's means `emulated`, and goes with no `native`. */
  readonly arch?: Arch;
  /** Release of the emulated kernel, 6.1 or newer; 6.12 by default. */
  readonly release?: string;
  /** Host page size of the emulated kernel: 4096, or 65536 on ppc64. */
  readonly pageSize?: number;
  /** How the emulated kernel of x86_64 is built, and its processor: Debian's, with nested paging, unless given. */
  readonly x86_64?: Partial<X86_64Build>;
  /** Calls to use instead. */
  readonly calls?: KvmCalls;
  /** Gets one line for each call, as strace would print it. */
  readonly trace?: (line: string) => void;
  /**
   * Gets the calls as lines of JSON, for `kvm-bridge replay`: arguments, answers, memory that goes in and comes out. Memory is then
   * reached by calls alone, which takes its time, and arrays over it cannot be had (EACCES).
   */
  readonly record?: (line: string) => void;
}

export interface OpenedCalls {
  readonly calls: KvmCalls;
  /** The emulated kernel itself, for loading its scripted guests. */
  readonly emulated: EmulatedKernel | undefined;
  /** With `auto`: why it isn't the real kernel. */
  readonly fallbackReason: string | undefined;
  /** The addon's loops over HTAB streams, if it is there: for ppc64, whichever kernel it is. */
  readonly htabLoops: HtabLoops | undefined;
}

/** Each value as it is meant, before anything is opened; what `release` and `pageSize` may be depends on the architecture. */
function checkOpenOptions(options: OpenOptions): OpenOptions {
  const { backend, arch, release, pageSize, x86_64, calls, trace, record } = checkOptions(options, {
    backend: true,
    arch: true,
    release: true,
    pageSize: true,
    x86_64: true,
    calls: true,
    trace: true,
    record: true,
  });
  if (backend !== undefined) checkOneOf(backend, 'options.backend', ['native', 'emulated', 'auto']);
  if (arch !== undefined) checkOneOf(arch, 'options.arch', ARCHES);
  if (release !== undefined) checkText(release, 'options.release');
  if (pageSize !== undefined) checkInteger(pageSize, 'options.pageSize', 1, Number.MAX_SAFE_INTEGER);
  if (x86_64 !== undefined) checkObject(x86_64, 'options.x86_64');
  if (calls !== undefined) checkCalls(calls, 'options.calls');
  if (backend === 'native') {
    for (const [name, value] of Object.entries({ release, pageSize, x86_64 })) {
      if (value !== undefined) throw outOfRange(`options.${name}`, "left out with backend: 'native'", value);
    }
    const host = archOfNode(process.arch);
    if (arch !== undefined && arch !== host && calls === undefined) {
      throw outOfRange('options.arch', `${host ?? 'left out'} with backend: 'native', as this machine is`, arch);
    }
  }
  checkCallback(trace, 'options.trace');
  checkCallback(record, 'options.record');
  return options;
}

type Chosen = Omit<OpenedCalls, 'htabLoops'>;

/**
 * The calls of the wanted kernel. Where neither `backend` nor `arch` is given and the real kernel cannot be used although this
 * is a Linux of a known architecture, Node's warning `KVM_BRIDGE_EMULATED` says so once.
 * @throws KvmError ENOENT, EACCES, ENODEV … with what to do about it, when `native` cannot be had
 */
export function openCalls(options: OpenOptions = {}): OpenedCalls {
  const { trace, record } = checkOpenOptions(options);
  const chosen = choose(options);
  if (options.backend === undefined && options.arch === undefined) warnOfFallback(chosen);
  const htabLoops = chosen.calls.arch === 'ppc64' ? addonHtabLoops() : undefined;
  // Its loop over storage keys is for whichever kernel it is.
  if (chosen.calls.arch === 's390x') loadNative();
  const calls =
    record === undefined ? chosen.calls : recorded(chosen.calls, record, { ...emulationOf(chosen.calls, options) });
  return {
    ...chosen,
    calls: trace === undefined ? calls : traced(calls, trace, { symbols: true }),
    htabLoops,
  };
}

function choose(options: OpenOptions): Chosen {
  const { calls, backend = 'auto', arch, release, pageSize, x86_64 } = options;
  if (calls !== undefined) {
    return { calls, emulated: calls instanceof EmulatedKernel ? calls : undefined, fallbackReason: undefined };
  }
  const host = archOfNode(process.arch);
  const isPlain = release === undefined && pageSize === undefined && x86_64 === undefined;
  const wantsOther = !isPlain || (arch !== undefined && arch !== host);
  let fallbackReason: string | undefined;
  if (backend === 'native' || (backend === 'auto' && !wantsOther)) {
    const native = tryNative();
    if (!(native instanceof Error)) return { calls: native, emulated: undefined, fallbackReason: undefined };
    if (backend === 'native') throw native;
    fallbackReason = native.message;
  }
  const emulated = new EmulatedKernel({
    arch: arch ?? host ?? 'x86_64',
    ...(release === undefined ? {} : { release }),
    ...(pageSize === undefined ? {} : { pageSize }),
    ...(x86_64 === undefined ? {} : { x86_64 }),
  });
  // The addon looks at its arguments itself.
  return { calls: checked(emulated), emulated, fallbackReason };
}

function addonHtabLoops(): HtabLoops | undefined {
  const native = loadNative();
  return 'htab' in native ? native.htab : undefined;
}

let warned = false;

/** Says once that nothing here is real, on machines where it could be. */
function warnOfFallback({ calls, fallbackReason }: Chosen): void {
  if (warned || fallbackReason === undefined) return;
  if (process.platform !== 'linux' || archOfNode(process.arch) === undefined) return;
  warned = true;
  process.emitWarning(`KVM of ${calls.arch} is emulated, since the real one cannot be used: ${fallbackReason}`, {
    code: 'KVM_BRIDGE_EMULATED',
    detail:
      "backend: 'emulated' asks for the emulated kernel, and backend: 'native' for nothing but the real one; either is silent.",
  });
}

/** The addon, if /dev/kvm opens too. */
function tryNative(): KvmCalls | Error {
  const native = loadNative();
  if (!('calls' in native)) {
    return new KvmError(ERRNO.ENOSYS, { syscall: 'load addon', explanation: native.reason });
  }
  const kvm = native.calls.openKvm();
  if (kvm < 0) return openFailure(kvm);
  const version = native.calls.getApiVersion(kvm, 0);
  native.calls.close(kvm);
  if (version === API_VERSION) return native.calls;
  const explanation = `/dev/kvm is no KVM of version ${API_VERSION}`;
  return callError('getApiVersion', version < 0 ? version : -ERRNO.ENOTTY, { explanation });
}

const HINTS: ReadonlyMap<number, string> = new Map([
  [
    ERRNO.ENOENT,
    'there is no /dev/kvm: load the module (modprobe kvm_intel, kvm_amd, kvm or kvm_hv), and see that virtualization is on in the firmware, or nested virtualization in the hypervisor',
  ],
  [ERRNO.EACCES, 'this user may not open /dev/kvm: sudo usermod -aG kvm "$USER", and log in again'],
  [ERRNO.ENODEV, 'the kernel has /dev/kvm, but its module found no usable processor'],
]);

/** The error of opening /dev/kvm, with what to do about it. */
export function openFailure(errno: number): KvmError {
  return callError('openKvm', errno, { explanation: HINTS.get(Math.abs(errno)) });
}
