import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { isLittleEndianHost } from '../../uapi/arch.ts';
import { ERRNO, errnoName } from '../../uapi/errno.ts';
import { exitName } from '../../uapi/flags.ts';
import { KVM_RUN } from '../../uapi/structs.ts';

/** How often runs ended with what, for calls that belong to one session: they are changed. */
export class ExitCounts {
  readonly #counts = new Map<string, number>();
  /** Where kvm_run is mapped, by the vCPU's descriptor. */
  readonly #areas = new Map<number, number>();
  readonly #calls: KvmCalls;
  readonly #reason = new Uint8Array(4);

  constructor(calls: KvmCalls) {
    this.#calls = calls;
    const { mmap, run, runAsync } = calls;
    const changed = calls as { mmap: KvmCalls['mmap']; run: KvmCalls['run']; runAsync: KvmCalls['runAsync'] };
    changed.mmap = (...args) => {
      const hva = mmap.apply(calls, args);
      if (hva >= 0 && args[3] >= 0 && Number(args[4]) === 0) this.#areas.set(args[3], hva);
      return hva;
    };
    changed.run = (vcpu, timeoutMs) => this.#count(vcpu, run.call(calls, vcpu, timeoutMs));
    changed.runAsync = async (vcpu) => this.#count(vcpu, await runAsync.call(calls, vcpu));
  }

  /** What was counted since it was asked last, by the reason. */
  take(): Map<string, number> {
    const taken = new Map(this.#counts);
    this.#counts.clear();
    return taken;
  }

  #count(vcpu: number, result: number): number {
    // A run says INTR as well.
    const name = result === -ERRNO.EINTR ? 'INTR' : result < 0 ? errnoName(result) : this.#exitOf(vcpu);
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    return result;
  }

  #exitOf(vcpu: number): string {
    const hva = this.#areas.get(vcpu);
    if (hva === undefined || this.#calls.readMemory(hva + KVM_RUN.exit_reason, this.#reason) !== 4) return 'exit';
    return exitName(new DataView(this.#reason.buffer).getUint32(0, isLittleEndianHost(this.#calls.arch)));
  }
}
