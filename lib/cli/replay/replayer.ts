import { EmulatedKernel, type EmulatedKernelOptions } from '../../backends/emulated.ts';
import { checked } from '../../calls/checked.ts';
import { bytesOfText } from '../../calls/format.ts';
import { PlacedSlots } from '../../calls/guest-stores.ts';
import type { KvmCalls } from '../../calls/kvm-calls.ts';
import { Names } from '../../calls/names.ts';
import { CALL_GROUPS, type Signature, signaturesOf } from '../../calls/signatures.ts';
import { isFilled, type TraceCall, type TraceValue, traceValue } from '../../calls/trace-file.ts';
import type { Arch } from '../../uapi/arch.ts';
import { errnoName } from '../../uapi/errno.ts';
import { MAP } from '../../uapi/flags.ts';
import { requestName } from '../../uapi/requests.ts';
import { type Answer, answerText, callText, type Difference, isWithin } from './compare.ts';
import { MOST_BYTES } from './guest.ts';
import { Missing, Places } from './places.ts';
import { TraceFileError, type TraceLine } from './read-trace.ts';
import { RunReplay } from './run-replay.ts';

type AnyCall = (...args: readonly unknown[]) => unknown;

interface Callee {
  readonly signature: Signature;
  /** Undefined where the emulated kernel has no such call. */
  readonly call: AnyCall | undefined;
}

/** A run under way, and how often it was kicked. */
interface Begun {
  readonly event: TraceCall;
  readonly vcpu: string;
  kicks: number;
}

/** Calls that give registers. */
const REGISTERS = new Set(['getRegs', 'getSregs', 'getOneReg']);
/** Calls that give what is in the guest's memory. */
const READS = new Set(['readMemory', 'gather', 'memOp']);

/** Makes the calls of a trace on the emulated kernel, and notes where its answers are others. */
export class Replayer {
  readonly differences: Difference[] = [];
  /** How many calls were not compared, or not wholly, by the reason. */
  readonly notCompared = new Map<string, number>();
  calls = 0;
  readonly #kernel: EmulatedKernel;
  readonly #checked: KvmCalls;
  readonly #places = new Places();
  readonly #slots = new PlacedSlots();
  readonly #runs: RunReplay;
  /** Runs that have begun, by their number, the first of a vCPU being the one that is under way. */
  readonly #begun = new Map<number, Begun>();
  /** Of dirty logs, by VM and slot: what the guest may have made dirty besides. */
  readonly #guestsOwn = new Map<string, Uint8Array>();

  /** @param traced the architecture of the trace */
  constructor(options: EmulatedKernelOptions, traced: Arch = options.arch) {
    this.#kernel = new EmulatedKernel(options);
    this.#checked = checked(this.#kernel);
    this.#runs = new RunReplay(this.#kernel, this.#slots, traced);
  }

  /** @throws TraceFileError for a line that is none of a trace's */
  take({ line, event }: TraceLine & { readonly event: TraceCall }): void {
    const callee = this.#callee(event.call);
    if (callee === undefined) throw new TraceFileError(`line ${line}: there is no call ${event.call}`);
    if (event.ends === undefined) this.calls++;
    try {
      const reason = this.#take(line, event, callee);
      if (reason !== undefined) this.#leaveOut(reason);
    } catch (error) {
      if (error instanceof Missing) this.#leaveOut(error.message);
      else if (error instanceof Error && /Syntax|Type|Range/.test(error.name)) {
        throw new TraceFileError(`line ${line}: ${event.call}: ${error.message}`);
      } else throw error;
    }
  }

  #callee(name: string): Callee | undefined {
    for (const group of [undefined, ...CALL_GROUPS]) {
      const signatures = signaturesOf(group);
      if (!Object.hasOwn(signatures, name)) continue;
      const target = (group === undefined ? this.#checked : this.#checked[group]) as
        | Record<string, AnyCall>
        | undefined;
      return { signature: signatures[name]!, call: target?.[name]?.bind(target) };
    }
    return undefined;
  }

  #leaveOut(reason: string): void {
    this.notCompared.set(reason, (this.notCompared.get(reason) ?? 0) + 1);
  }

  /** Makes the call and compares; or says why not. */
  #take(line: number, event: TraceCall, { signature, call }: Callee): string | undefined {
    if (call === undefined) return `the emulated kernel has no ${event.call}`;
    const vcpu = String(event.args[0]);
    if (event.begins !== undefined) {
      if (event.call === 'runAsync') this.#begun.set(event.begins, { event, vcpu, kicks: 0 });
      return undefined;
    }
    const begun = [...this.#begun.values()].find((run) => run.vcpu === vcpu);
    if (event.call === 'poll') return 'when poll comes back is a matter of time';
    if (event.call === 'kick' && begun !== undefined) {
      begun.kicks++;
      return undefined;
    }
    if (event.result === '-EBUSY' && this.#begun.size > 0) {
      this.#begun.delete(event.ends ?? -1);
      return undefined;
    }
    if (event.ends === undefined) for (const running of this.#begun.values()) this.#runs.races(running.vcpu);
    if (this.#isRun(event)) return this.#run(line, event, signature, begun);
    const args = signature.parameters.map(([, kind], i) => this.#places.argument(kind, event.args[i] ?? null));
    if (event.call === 'mmap') this.#withoutFile(event, args);
    const value = call(...args) as number;
    const answer = this.#answer(event, signature, value, args);
    const excuse = this.#compare(line, event, signature, answer);
    if (value >= 0) this.#heard(event, args, value);
    return excuse;
  }

  #isRun({ call, args }: TraceCall): boolean {
    return (
      call === 'run' ||
      call === 'runAsync' ||
      (call === 'ioctlUnchecked' && args[2] === 0 && requestName(Number(args[1]), this.#kernel.arch) === 'KVM_RUN')
    );
  }

  /** Files are not here: memory without a file stands for theirs. */
  #withoutFile(event: TraceCall, args: unknown[]): void {
    if (event.args[3] !== 'fd?' || event.result?.startsWith('-') === true) return;
    args[2] = Number(args[2]) | MAP.ANONYMOUS;
    args[3] = -1;
    args[4] = 0;
  }

  #answer({ args: before, result }: TraceCall, signature: Signature, value: number, args: readonly unknown[]): Answer {
    const names = new Names(undefined, undefined);
    const opens = signature.result === 'hva' || typeof signature.result === 'object';
    const shown = opens ? (result?.startsWith('-') === true ? 'a new one' : (result ?? '')) : String(value);
    if (value < 0) return { result: `-${errnoName(value)}`, filled: {} };
    const filled: Record<string, TraceValue> = {};
    for (const [i, [name, kind]] of signature.parameters.entries()) {
      if (!isFilled(kind) || kind === 'outfds') continue;
      const after = traceValue(kind, args[i], names);
      if (JSON.stringify(after) !== JSON.stringify(before[i])) filled[name] = after;
    }
    return { result: shown, filled };
  }

  #compare(line: number, event: TraceCall, signature: Signature, emulated: Answer): string | undefined {
    const recorded: Answer = { result: String(event.result), filled: event.filled ?? {} };
    if (JSON.stringify(sorted(recorded)) === JSON.stringify(sorted(emulated))) return undefined;
    const excuse =
      this.#excuseOfResult(event) ?? (recorded.result === emulated.result ? this.#excuse(event, emulated) : undefined);
    if (excuse === undefined) this.#differs(line, event, signature, answerText(recorded), answerText(emulated));
    return excuse;
  }

  #differs(line: number, event: TraceCall, signature: Signature, recorded: string, emulated: string): void {
    const call = callText(event, signature, this.#kernel.arch);
    this.differences.push({ line, call, recorded, emulated });
  }

  /** Why a result may be another: what the guest did inside the kernel is not in the trace. */
  #excuseOfResult({ call, args, result }: TraceCall): string | undefined {
    const name = String(args[0]);
    if (call === 'read' && name.startsWith('eventfd#') && result !== '-EAGAIN' && this.#runs.ranSinceLog(name)) {
      return 'what a guest signalled by eventfds is not in the trace';
    }
    if (call === 'read' && name.startsWith('htab#') && this.#runs.anyHasRun)
      return 'what a guest did to its page table is not in the trace';
    if (call === 'resetDirtyRings' && this.#runs.isBelieved(name))
      return 'what a guest put into a dirty ring is not all in the trace';
    return undefined;
  }

  /** Why what a call filled may be another: it is the guest's doing, which nobody looked at. */
  #excuse({ call, args, filled }: TraceCall, emulated: Answer): string | undefined {
    const [first] = args;
    if (REGISTERS.has(call) && this.#runs.hasRun(String(first))) return "registers after a run are the guest's";
    if (READS.has(call) && this.#places.isForeign(first ?? null)) return 'what is in a file is not in the trace';
    const needsMemory = READS.has(call) || call === 'getDirtyLog';
    if (needsMemory && this.#runs.memoryUnknown) return 'what a guest stored is not all in the trace';
    if (call !== 'getDirtyLog') return undefined;
    return this.#dirtyExcuse(args, filled?.bitmap, emulated.filled.bitmap);
  }

  /**
   * Pages that are dirty beyond what is seen: the guest may have stored what was there. None that the emulated kernel calls dirty may be
   * missing, but where the log was asked for during a run.
   */
  #dirtyExcuse(args: readonly TraceValue[], real: TraceValue = '', emulated: TraceValue = ''): string | undefined {
    const [vm, slot, empty] = args.map(String);
    const size = bytesOfText(empty ?? '', MOST_BYTES).length;
    const bits = (text: TraceValue) => (text === '' ? new Uint8Array(size) : bytesOfText(String(text), MOST_BYTES));
    const [theirs, ours] = [bits(real), bits(emulated)];
    const key = `${vm} ${slot}`;
    if (this.#runs.isRacing(vm!)) return 'the log was read while the guest ran';
    if (!isWithin(ours, theirs)) return undefined;
    const more = theirs.map((byte, i) => byte & ~ours[i]!);
    const allowed = this.#guestsOwn.get(key) ?? new Uint8Array(size);
    if (!this.#runs.ranSinceLog(key) && !isWithin(more, allowed)) return undefined;
    this.#guestsOwn.set(key, more);
    return 'pages in which the guest may have stored what was there';
  }

  #heard(event: TraceCall, args: readonly unknown[], value: number): void {
    const name = event.result ?? '';
    if (name.startsWith('map#')) {
      this.#places.mapped(name, value, event.args[3] === 'fd?');
      this.#runs.mapped(name, String(event.args[3]), value, Number(args[0]), Number(args[4]));
    } else if (name.includes('#')) this.#places.opened(name, value);
    this.#slots.heard(event.call, args, value);
    if (event.call === 'createVcpu') this.#runs.created(String(event.args[0]), name);
    if (event.call === 'getDirtyLog') this.#runs.logRead(`${event.args[0]} ${event.args[1]}`);
    if (event.call === 'read') this.#runs.logRead(String(event.args[0]));
    if (event.call === 'registerCoalescedMmio') this.#runs.believe(String(event.args[0]));
  }

  #run(line: number, end: TraceCall, signature: Signature, begun: Begun | undefined): string | undefined {
    const name = String(end.args[0]);
    this.#begun.delete(end.ends ?? -1);
    if (!this.#places.has(name)) this.#runs.memoryUnknown = true;
    const vcpu = Number(this.#places.argument('fd', name));
    const kick = (): void => {
      if ((begun?.kicks ?? 0) > 0) this.#kernel.kick(vcpu);
    };
    // A kick that came too late for the run is for the next one.
    if (end.result === '-EINTR') kick();
    const found = this.#runs.replay(name, vcpu, { ...begun?.event, ...end });
    if (end.result !== '-EINTR') kick();
    if (found === undefined) return undefined;
    if ('notCompared' in found) return found.notCompared;
    this.#differs(line, end, signature, found.recorded, found.emulated);
    return undefined;
  }
}

const sorted = ({ result, filled }: Answer): unknown => [result, Object.entries(filled).sort()];
