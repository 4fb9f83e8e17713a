import { checkOptions, checkSignal, checkU32, type NamesOf } from '../base/arguments.ts';
import type { KvmError } from '../base/errors.ts';
import { StackFlag } from '../base/stack-flag.ts';
import type { U64 } from '../base/u64.ts';
import { type Callee, callFailure } from '../calls/failure.ts';
import type { MmioBus } from '../memory/mmio-bus.ts';
import type { Arch } from '../uapi/arch.ts';
import { ERRNO } from '../uapi/errno.ts';
import { EXIT } from '../uapi/index.ts';
import type { KvmRun, VcpuExit } from './kvm-run.ts';

export interface RunOptions {
  /** Aborting gets the vCPU out of the guest; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

export interface RunSyncOptions {
  /** After so long the run comes back with INTR; 0 (the default) is never. */
  readonly timeoutMs?: number;
}

const RUN_OPTIONS: NamesOf<RunOptions> = { signal: true };
const RUN_SYNC_OPTIONS: NamesOf<RunSyncOptions> = { timeoutMs: true };

/** Those of a VM who answer the exits of its vCPUs. */
export interface RunHost {
  readonly memory: { answerGuest(gpa: U64, data: Uint8Array, isStore: boolean): boolean };
  readonly io: { readonly ports: MmioBus; drainCoalesced(): void };
  harvestDirtyRings(): boolean;
}

/** The vCPU that is run. */
export interface RunVcpu extends Callee {
  readonly id: number;
  readonly kvmRun: KvmRun;
  readonly vm: RunHost;
}

const INTERRUPTED = { reason: 'INTR' } as const;
/** This thread can't do it, and the vCPU's can. */
const ELSEWHERE = 'elsewhere';

/** KVM_RUN again and again, as long as handlers take its exits; and what gets it out of the guest. */
export class RunLoop {
  readonly #vcpu: RunVcpu;
  /** A run on the vCPU's thread. */
  #running = false;
  /** One on this thread. */
  readonly #onStack = new StackFlag();
  /** Of a run off the main thread: what it came to, undefined where it failed. */
  #underWay: Promise<VcpuExit | undefined> | undefined;
  #kicked = false;
  /** A run was aborted while none was under way: the next EINTR is of that, and nobody's. */
  #staleKick = false;
  /** What a KVM_RUN came to that is not answered, since a handler of coalesced stores threw before. */
  #unanswered: number | undefined;

  constructor(vcpu: RunVcpu) {
    this.#vcpu = vcpu;
  }

  /** Whether a run is under way, on the vCPU's thread or on this one: its handlers see true. */
  get running(): boolean {
    return this.#running || this.#onStack.isUp;
  }

  /** @throws the signal's reason when aborted; KvmError EBUSY while another run is under way, EFAULT, EBADF … */
  async run(options: RunOptions): Promise<VcpuExit> {
    const signal = checkSignal(checkOptions(options, RUN_OPTIONS).signal, 'options.signal');
    const { calls } = this.#vcpu;
    signal?.throwIfAborted();
    this.#assertIdle();
    const abort = (): void => {
      this.#staleKick = true;
      calls.kick(this.#vcpu.fd);
    };
    signal?.addEventListener('abort', abort, { once: true });
    this.#running = true;
    let ended: (exit: VcpuExit | undefined) => void = () => {};
    this.#underWay = new Promise((resolve) => {
      ended = resolve;
    });
    let exit: VcpuExit | undefined;
    try {
      for (;;) {
        const result = this.#takeUnanswered() ?? (await calls.runAsync(this.#vcpu.fd));
        if (this.#vcpu.closed) throw this.#failure(-ERRNO.EBADF);
        this.#drainCoalesced(result);
        if (result === -ERRNO.EINTR && signal?.aborted === true) {
          this.#takeKicks();
          throw signal.reason;
        }
        if (this.#isOfAbort(result)) continue;
        exit = this.#exitOf(result);
        if (exit !== undefined) return exit;
      }
    } finally {
      this.#running = false;
      this.#underWay = undefined;
      // Whoever waits for this goes on before the caller of the run does.
      ended(exit);
      signal?.removeEventListener('abort', abort);
    }
  }

  /** @throws KvmError EBUSY, EFAULT, EBADF … */
  runSync(options: RunSyncOptions): VcpuExit {
    const { timeoutMs = 0 } = checkOptions(options, RUN_SYNC_OPTIONS);
    checkU32(timeoutMs, 'options.timeoutMs');
    this.#assertIdle();
    this.#onStack.raise();
    try {
      return this.#runUntil(timeoutMs);
    } finally {
      this.#onStack.lower();
    }
  }

  /**
   * Gets the vCPU out of the guest, and has the kernel finish what the guest is in the middle of.
   * @returns INTR; or an exit that is not answered yet
   */
  async pause(): Promise<VcpuExit> {
    const { closed } = this.#vcpu;
    if (this.#underWay !== undefined && !closed) {
      this.kick();
      const exit = await this.#underWay;
      if (exit !== undefined && exit.reason !== 'INTR') return exit;
    }
    return this.#complete();
  }

  /** KVM_RUN that does not enter the guest: what it finishes may be an exit again. */
  async #complete(): Promise<VcpuExit> {
    this.#assertIdle();
    const { calls, fd, kvmRun } = this.#vcpu;
    if (fd < 0) throw this.#failure(-ERRNO.EBADF);
    // A kick sets it too, and is used up here.
    const before = kvmRun.immediateExit && !this.#kicked && !this.#staleKick;
    try {
      for (;;) {
        const done = this.#completeHere();
        if (done !== ELSEWHERE) {
          if (done !== undefined) return done;
          continue;
        }
        kvmRun.immediateExit = true;
        this.#running = true;
        const exit = this.#completed(await calls.runAsync(fd));
        this.#running = false;
        if (exit !== undefined) return exit;
      }
    } finally {
      this.#running = false;
      if (!this.#vcpu.closed) kvmRun.immediateExit = before;
    }
  }

  /** The same on this thread, once; undefined when a handler took what came of it. A thread that serves page faults can't. */
  #completeHere(): VcpuExit | undefined | typeof ELSEWHERE {
    const { calls, fd, kvmRun } = this.#vcpu;
    this.#onStack.raise();
    try {
      kvmRun.immediateExit = true;
      const result = this.#takeUnanswered() ?? calls.run(fd, 0);
      return result === -ERRNO.EDEADLK ? ELSEWHERE : this.#completed(result);
    } finally {
      this.#onStack.lower();
    }
  }

  #completed(result: number): VcpuExit | undefined {
    if (this.#vcpu.closed) throw this.#failure(-ERRNO.EBADF);
    this.#drainCoalesced(result);
    // One that was never initialised has nothing to finish.
    const exit = result === -ERRNO.ENOEXEC ? INTERRUPTED : this.#exitOf(result);
    if (exit?.reason === 'INTR') {
      this.#kicked = false;
      this.#staleKick = false;
    }
    return exit;
  }

  /** The run under way, or the next one, comes back with INTR. @throws KvmError EBADF */
  kick(): void {
    this.#kicked = true;
    const result = this.#vcpu.calls.kick(this.#vcpu.fd);
    if (result < 0) throw callFailure('kick', result, this.#vcpu);
  }

  /**
   * The vCPU is about to be closed: a run under way is interrupted, and rejects with EBADF. Whether nobody is in the guest
   * any more.
   */
  stop(): boolean {
    return this.#vcpu.calls.stop(this.#vcpu.fd) === 0;
  }

  /** One exit is answered at a time: a run from within a handler would swallow that of the run under way. */
  #assertIdle(): void {
    if (this.running) throw this.#failure(-ERRNO.EBUSY, `vCPU ${this.#vcpu.id} is running already`);
  }

  #runUntil(timeoutMs: number): VcpuExit {
    const { calls } = this.#vcpu;
    // Without a limit nobody looks at the clock.
    const end = timeoutMs === 0 ? undefined : performance.now() + timeoutMs;
    for (let left = timeoutMs; ; left = end === undefined ? 0 : Math.max(1, Math.ceil(end - performance.now()))) {
      const result = this.#takeUnanswered() ?? calls.run(this.#vcpu.fd, left);
      this.#drainCoalesced(result);
      if (this.#isOfAbort(result)) continue;
      const exit = this.#exitOf(result);
      if (exit !== undefined) return exit;
      if (end !== undefined && performance.now() >= end) return { reason: 'INTR' };
    }
  }

  /** Stores that were put aside reach their handlers before the exit that came after them; where one throws, that waits for the next run. */
  #drainCoalesced(result: number): void {
    this.#unanswered = result;
    this.#vcpu.vm.io.drainCoalesced();
    this.#unanswered = undefined;
  }

  #takeUnanswered(): number | undefined {
    const result = this.#vcpu.closed ? undefined : this.#unanswered;
    this.#unanswered = undefined;
    return result;
  }

  #isOfAbort(result: number): boolean {
    if (result !== -ERRNO.EINTR || !this.#staleKick || this.#kicked) return false;
    this.#takeKicks();
    return true;
  }

  /** A run was interrupted, which uses kicks up; but one that came when it was out of the guest already is for the next run. */
  #takeKicks(): void {
    const { closed, kvmRun } = this.#vcpu;
    const isPending = !closed && kvmRun.immediateExit;
    this.#kicked = this.#kicked && isPending;
    this.#staleKick = this.#staleKick && isPending;
  }

  /** What a KVM_RUN led to, or undefined when it was handled and the guest may run on. */
  #exitOf(result: number): VcpuExit | undefined {
    if (result === -ERRNO.EINTR) {
      this.#takeKicks();
      return { reason: 'INTR' };
    }
    const { vm, kvmRun } = this.#vcpu;
    if (result < 0) return this.#failedRun(result);
    // s390x from 7.0 on: an interruption code that is meant for nobody, where older kernels answer EFAULT.
    if (result > 0) throw this.#failure(-ERRNO.EFAULT, "no memslot is behind the vCPU's prefix area");
    switch (kvmRun.exitReason) {
      case EXIT.MMIO:
        return this.#answerMmio() ? undefined : kvmRun.exit();
      case EXIT.IO:
        return this.#answerIo() ? undefined : kvmRun.exit();
      case EXIT.DIRTY_RING_FULL:
        return vm.harvestDirtyRings() ? undefined : kvmRun.exit();
      default:
        return kvmRun.exit();
    }
  }

  #failedRun(errno: number): VcpuExit {
    const { closed, kvmRun, calls } = this.#vcpu;
    if (errno === -ERRNO.EFAULT && !closed && kvmRun.exitReason === EXIT.MEMORY_FAULT) {
      const exit = kvmRun.exit();
      // The area keeps its last reason; another EFAULT need not be one of these.
      kvmRun.exitReason = EXIT.UNKNOWN;
      return exit;
    }
    throw this.#failure(errno, whyNotRun(errno, calls.arch));
  }

  #failure(errno: number, explanation?: string): KvmError {
    return callFailure('run', errno, this.#vcpu, { explanation });
  }

  #answerMmio(): boolean {
    const { gpa, data, isWrite } = this.#vcpu.kvmRun.mmio();
    return this.#vcpu.vm.memory.answerGuest(gpa, data, isWrite);
  }

  #answerIo(): boolean {
    const { port, size, count, direction, data } = this.#vcpu.kvmRun.io();
    const { ports } = this.#vcpu.vm.io;
    // A handler may close the vCPU, which the next KVM_RUN tells.
    for (let i = 0; i < count && !this.#vcpu.closed; i++) {
      const one = data.subarray(i * size, (i + 1) * size);
      if (!(direction === 'out' ? ports.write(port, one) : ports.read(port, one))) return false;
    }
    return true;
  }
}

/** Why KVM_RUN, or what has to be there for it, failed. */
function whyNotRun(errno: number, arch: Arch): string | undefined {
  switch (errno) {
    case -ERRNO.EFAULT: {
      const touched = 'the guest touched memory that its memslot promises and the host cannot give';
      // Up to 6.19 one errno for both.
      return arch === 's390x' ? `no memslot is behind the vCPU's prefix area, or ${touched}` : touched;
    }
    case -ERRNO.EINVAL:
      return arch === 'ppc64'
        ? 'Book3S HV runs only vCPUs with ppc64.enablePapr(), and hash guests only with memory at 0'
        : undefined;
    case -ERRNO.EAGAIN:
      return 'a run needs a signal that is set aside (RLIMIT_SIGPENDING, `ulimit -i`), and run() a thread (RLIMIT_NPROC, memory)';
    default:
      return undefined;
  }
}
