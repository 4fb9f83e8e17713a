import { StackFlag } from '../base/stack-flag.ts';
import { ERRNO } from '../uapi/errno.ts';
import { EXIT, MEM, MEMORY_EXIT_FLAG, PIO_PAGE_OFFSET } from '../uapi/flags.ts';
import { IO_DIRECTION, KVM_RUN, KVM_RUN_S390X, REGS_SIZE } from '../uapi/structs.ts';
import type { ArchVcpu } from './arch-state.ts';
import { type MapSource, SharedArea } from './backing.ts';
import type { EmulatedDirtyRing } from './dirty-ring.ts';
import {
  changed,
  checkOp,
  type GuestCode,
  GuestFault,
  type GuestOp,
  type GuestProgram,
  type GuestResult,
} from './guest.ts';
import type { EmulatedMemslot } from './memslots.ts';
import { nextOp } from './next-op.ts';
import type { OpenFile } from './open-file.ts';
import { FOREVER } from './poll.ts';
import { type Accessor, type Fragment, isFailure, type Outcome } from './step.ts';
import { bytesOf, integerOf } from './values.ts';
import { vcpuPages } from './vcpu-pages.ts';
import type { EmulatedVm } from './vm.ts';

/** An asynchronous run gives the event loop a turn after so many operations. */
const OPS_PER_TURN = 1000;

/** What a guest maps no less of, however large the host's pages are. */
const SMALLEST_PAGE = 4096;

/** What an MMIO exit holds at most, and what KVM reads from a port at once. */
const MMIO_BYTES = 8;
const PORT_BUFFER = 1024;

type StringOp = GuestOp & { readonly op: 'outs' | 'ins' };

/** One vCPU: the kvm_run area, a scripted guest, a dirty ring. */
export class EmulatedVcpu<Arch extends ArchVcpu = ArchVcpu> implements OpenFile {
  readonly kind = 'vcpu';
  readonly vm: EmulatedVm;
  readonly id: number;
  /** What the architecture keeps of it. */
  readonly arch: Arch;
  /** The mapping's pages: kvm_run, port I/O data, and the rest up to KVM_GET_VCPU_MMAP_SIZE. */
  readonly area: SharedArea;
  readonly ring: EmulatedDirtyRing | undefined;
  readonly regs: Uint8Array;
  readonly sregs: Uint8Array;
  readonly oneRegs: Map<bigint, Uint8Array> = new Map();
  mpState = 0;
  #program: GuestProgram | undefined;
  #code: GuestCode | undefined;
  #result: GuestResult;
  /** What is left of an access that led to an exit or failed, done before the program goes on. */
  #pending: (() => Outcome) | undefined;
  /** It failed. */
  #failed = false;
  /** A run off this thread's stack, and one on it. */
  #running = false;
  readonly #onStack = new StackFlag();
  #kicked = false;
  /** The run under way has not entered the guest yet. */
  #entering = false;
  /** The run under way has come to its end, which its caller has not heard of yet. */
  #ended = false;
  #wake: (() => void) | undefined;
  /** The page that the guest waits for. */
  #page: Promise<void> | undefined;

  constructor(vm: EmulatedVm, id: number, createArch: (vcpu: EmulatedVcpu) => Arch) {
    this.vm = vm;
    this.id = id;
    this.area = new SharedArea(vm.machine.vcpuMmapSize);
    vm.bus.ring?.showIn(this.area, vm.machine.coalescedMmioPage * vm.machine.pageSize);
    this.ring = vm.dirtyLog.newRing();
    const sizes = REGS_SIZE[vm.machine.arch];
    this.regs = new Uint8Array(sizes.regs ?? 0);
    this.sregs = new Uint8Array(sizes.sregs ?? 0);
    vm.adopt(this);
    this.arch = createArch(this);
  }

  released(): void {
    this.vm.letGo();
  }

  get running(): boolean {
    return this.#running || this.#onStack.isUp;
  }

  mmap(offset: number, flags: number, length: number): MapSource | number {
    return vcpuPages(this, offset, flags, length);
  }

  /** What the guest executes from the next KVM_RUN on. */
  load(program: GuestProgram, code?: GuestCode): void {
    this.#program = program;
    this.#code = code;
    this.arch.loaded?.();
    this.#result = undefined;
    this.#pending = undefined;
  }

  /** KVM_RUN. A program that spins is interrupted at once: nothing else could happen on this thread. */
  run(timeoutMs: number): number {
    if (this.running) return -ERRNO.EBUSY;
    this.#onStack.raise();
    this.#entering = true;
    // Without a limit nobody looks at the clock.
    const deadline = timeoutMs === 0 ? undefined : performance.now() + timeoutMs;
    try {
      let outcome: Outcome;
      do {
        outcome = this.#turn();
      } while (outcome === 'continue' && (deadline === undefined || performance.now() < deadline));
      return this.#finish(outcome);
    } finally {
      this.#onStack.lower();
    }
  }

  async runAsync(): Promise<number> {
    if (this.running) return -ERRNO.EBUSY;
    this.#running = true;
    this.#entering = true;
    try {
      let outcome: Outcome;
      do {
        outcome = this.#turn();
        this.#ended = typeof outcome === 'number' || outcome === 'exit' || outcome === 'immediate';
        // As after a run on a thread, nobody goes on before the event loop has turned: guests that exit in a loop starve nothing.
        await new Promise<void>((turn) => setImmediate(turn));
        if (outcome !== 'wait') continue;
        await this.#wait(this.#page);
        outcome = 'continue';
      } while (outcome === 'continue' && !this.#kicked);
      if (outcome === 'spin') await this.#wait();
      return this.#finish(outcome);
    } finally {
      this.#running = false;
      this.#ended = false;
    }
  }

  /** Until what the guest waits for may be there, or somebody kicks it. */
  async #wait(page?: Promise<void>): Promise<void> {
    if (this.#kicked) return;
    const kicked = new Promise<void>((wake) => {
      this.#wake = wake;
    });
    // A run under way keeps the process alive, as the addon's does.
    const keepsAlive = setInterval(() => {}, FOREVER);
    try {
      await (page === undefined ? kicked : Promise.race([page, kicked]));
    } finally {
      clearInterval(keepsAlive);
    }
  }

  /** No operation of the guest's is carried out any more: the run under way ends with EINTR. */
  stop(): number {
    if (this.running && !this.#ended) return this.kick();
    // One that found no run ends no other.
    if (this.#kicked && !this.running) {
      this.#kicked = false;
      this.area.view.setUint8(KVM_RUN.immediate_exit, 0);
    }
    return 0;
  }

  /** The run under way, or else the next one, ends with EINTR. */
  kick(): number {
    this.#kicked = true;
    this.area.view.setUint8(KVM_RUN.immediate_exit, 1);
    this.#wake?.();
    return 0;
  }

  #finish(outcome: Outcome): number {
    this.#wake = undefined;
    if (outcome === 'exit') return 0;
    if (typeof outcome === 'number' && outcome !== -ERRNO.EINTR) return outcome;
    if (this.#kicked) {
      this.#kicked = false;
      this.area.view.setUint8(KVM_RUN.immediate_exit, 0);
    }
    // A run that never came to the guest leaves the reason of the exit before.
    if (outcome !== 'immediate') this.#setExit(EXIT.INTR);
    return -ERRNO.EINTR;
  }

  /** Runs for a while: at most {@link OPS_PER_TURN} operations. */
  #turn(): Outcome {
    const refused = this.arch.beforeRun?.() ?? 0;
    if (refused !== 0) return refused;
    const pending = this.#pending;
    if (pending !== undefined) {
      // What failed is done again once the guest is entered; what user space has done its part of is completed before.
      if (this.#failed && this.#immediateExit()) return this.#interrupted();
      const outcome = this.#resume(pending);
      this.#failed = isFailure(outcome);
      if ((outcome === 'spin' || outcome === 'wait') && this.#immediateExit()) return this.#interrupted();
      if (outcome !== 'continue') return outcome;
      if (this.#pending !== pending && this.#pending !== undefined) return outcome;
      this.#pending = undefined;
    }
    for (let i = 0; i < OPS_PER_TURN; i++) {
      if (this.#immediateExit()) return this.#interrupted();
      this.#entering = false;
      if (this.ring?.checkRequest() === true) return this.#exit(EXIT.DIRTY_RING_FULL);
      const fetched = this.#fetch();
      const outcome = fetched === 'continue' ? this.#step() : fetched;
      if (outcome === 'continue' && this.#pending === undefined) continue;
      this.#failed = isFailure(outcome);
      return outcome;
    }
    return 'continue';
  }

  #interrupted(): Outcome {
    return this.#entering ? 'immediate' : -ERRNO.EINTR;
  }

  #immediateExit(): boolean {
    return this.area.view.getUint8(KVM_RUN.immediate_exit) !== 0;
  }

  #step(): Outcome {
    if (this.#program === undefined) return -ERRNO.EINTR;
    const next = nextOp(this.#program, this.#result, undefined);
    if (next.done === true) return this.#halt();
    this.#result = undefined;
    return this.#guarded(next.value);
  }

  /**
   * Does some of an operation's work, or all of it; what faults in it is the program's. One that made the run fail is executed again by
   * the next run, as an instruction is; a string goes on with the unit that failed.
   */
  #guarded(op: GuestOp, work?: () => Outcome): Outcome {
    try {
      const outcome = work === undefined ? this.#execute(op) : work();
      if (isFailure(outcome) && op.op !== 'outs') this.#tryAgain(op);
      return outcome;
    } catch (fault) {
      return this.#faulted(fault);
    }
  }

  /** Goes on with what an exit or a failure left; what faults in that is the program's as well. */
  #resume(pending: () => Outcome): Outcome {
    try {
      return pending();
    } catch (fault) {
      return this.#faulted(fault);
    }
  }

  #faulted(fault: unknown): Outcome {
    if (!(fault instanceof GuestFault)) throw fault;
    const after = nextOp(this.#program!, undefined, fault);
    return after.done === true ? this.#halt() : this.#guarded(after.value);
  }

  // On its own: where a closure is made each operation costs one, whether it is made or not.
  #tryAgain(op: GuestOp): void {
    this.#pending = () => this.#guarded(op);
  }

  #execute(op: GuestOp): Outcome {
    checkOp(op);
    switch (op.op) {
      case 'store':
        return this.#access(
          this.#fragments(op.address, bytesOf(op.value, op.size, this.vm.machine.littleEndian), true),
          true,
        );
      case 'load': {
        const bytes = new Uint8Array(op.size);
        return this.#then(this.#access(this.#fragments(op.address, bytes, false), false), () => {
          this.#result = integerOf(bytes, this.vm.machine.littleEndian);
        });
      }
      case 'out':
        return this.#port(op.port, bytesOf(op.value, op.size, this.vm.machine.littleEndian), true);
      case 'in': {
        const bytes = new Uint8Array(op.size);
        return this.#then(this.#port(op.port, bytes, false), () => {
          this.#result = integerOf(bytes, this.vm.machine.littleEndian);
        });
      }
      case 'outs':
        return this.#outString(op);
      case 'ins':
        return this.#inString(op);
      case 'update':
        return this.#update(op);
      case 'hypercall':
        return this.#hypercall(op.nr, op.args);
      case 'execute':
        return this.#instruction(op);
      case 'instruction':
        return this.#architectures(op);
      case 'halt':
        return this.#halt();
      case 'spin':
        return this.#spin();
    }
  }

  /** Goes on once an access is complete, whether now or when user space has done its part. */
  #chain(outcome: Outcome, next: () => Outcome): Outcome {
    if (outcome === 'continue') return next();
    const rest = this.#pending!;
    this.#pending = () => this.#chain(rest(), next);
    return outcome;
  }

  /** Does something once an access is complete. */
  #then(outcome: Outcome, complete: () => void): Outcome {
    return this.#chain(outcome, () => {
      complete();
      return 'continue';
    });
  }

  /** Executes an instruction that only the architecture knows. One that has to wait is tried again after a turn. */
  #architectures(op: GuestOp & { readonly op: 'instruction' }): Outcome {
    if (this.arch.instruction === undefined) throw new GuestFault(0, `${this.vm.machine.arch} has no ${op.name} here`);
    const result = this.arch.instruction(op.name, op.operands);
    if (result === 'retry') this.#tryAgain(op);
    else this.#result = result;
    return 'continue';
  }

  /** Executes an instruction of the guest's. One that finds no memory leaves the guest, and is KVM's to emulate. */
  #instruction(op: GuestOp & { readonly op: 'execute' }): Outcome {
    const { vm } = this;
    const found = this.arch.guestCode?.(op.address);
    if (found === undefined) throw new GuestFault(0, `there is no load or store at 0x${op.address.toString(16)}`);
    const { address, bytes, write } = found;
    let done = 0;
    for (const fragment of this.#fragments(address, bytes, write)) {
      const ea = address + done;
      done += fragment.bytes.length;
      if (fragment.gpa >= 0 && vm.usableSlot(Math.floor(fragment.gpa / vm.pageSize)) === undefined) {
        this.#pending = () => this.#guarded(op, () => this.#emulate(op, fragment.gpa, ea, write));
        return 'continue';
      }
      const outcome = this.#access([fragment], write);
      if (outcome !== 'continue') return outcome;
    }
    found.accepted();
    this.#result = found.complete();
    return 'continue';
  }

  /** Emulates the access of an instruction that faulted, or goes back to the guest, where others may have run since. */
  #emulate(op: GuestOp & { readonly op: 'execute' }, gpa: number, ea: number, write: boolean): Outcome {
    const found = this.arch.emulatedCode!(op.address, ea, write);
    if (found === undefined) return this.#guarded(op);
    found.accepted();
    const outcome = found.bytes.length === 0 ? 'continue' : this.#mmio(gpa, found.bytes, write);
    return this.#then(outcome, () => {
      this.#result = found.complete();
    });
  }

  #fragments(address: number, bytes: Uint8Array, write: boolean): Fragment[] {
    const fragments: Fragment[] = [];
    for (let done = 0; done < bytes.length; ) {
      const at = address + done;
      const length = Math.min(bytes.length - done, SMALLEST_PAGE - (at % SMALLEST_PAGE));
      const gpa = this.arch.translate?.(at, length, write) ?? at;
      fragments.push({ gpa, bytes: bytes.subarray(done, done + length) });
      done += length;
    }
    return fragments;
  }

  #access(fragments: Fragment[], write: boolean, by: Accessor = 'guest'): Outcome {
    // The processor looks at all pages of a store before it changes one.
    const isSplit = write && by === 'guest' && fragments.length > 1 && !this.vm.machine.emulatesGuestCode;
    const faulting = isSplit ? fragments.find((fragment) => this.#faults(fragment, write)) : undefined;
    if (faulting !== undefined) {
      return this.#leave(this.#memoryFault(faulting.gpa, faulting.bytes, write, by), fragments, write, by);
    }
    for (let fragment = fragments[0]; fragment !== undefined; fragment = fragments[0]) {
      const outcome = this.#move(fragment, write, by);
      if (outcome !== 'continue') return this.#leave(outcome, fragments, write, by);
      fragments.shift();
    }
    return 'continue';
  }

  /** Leaves an access at its first fragment: that is done again where it failed, and else the next ones once user space has done its part. */
  #leave(outcome: Outcome, fragments: Fragment[], write: boolean, by: Accessor): Outcome {
    const next = (): Outcome => this.#access(fragments, write, by);
    if (!isFailure(outcome)) {
      fragments.shift();
      // There may be more of the fragment: a device gets eight bytes at a time.
      return this.#chain(outcome, next);
    }
    this.#pending = next;
    return outcome;
  }

  /** Carries out what of an access is in one page. */
  #move({ gpa, bytes }: Fragment, write: boolean, by: Accessor): Outcome {
    if (gpa < 0) return gpa;
    const { vm } = this;
    const gfn = Math.floor(gpa / vm.pageSize);
    const slot = vm.usableSlot(gfn);
    const byGuest = by === 'guest';
    if (this.#isDevice(slot, write) && !(byGuest && vm.isPrivate(gfn))) {
      if (slot === undefined) vm.accessedDevice(gfn);
      return this.#mmio(gpa, bytes, write);
    }
    const moved = slot && (byGuest ? vm.moveGuest(slot, gpa, bytes, write) : vm.moveHost(slot, gpa, bytes, write));
    if (slot === undefined || moved !== bytes.length) return this.#memoryFault(gpa, bytes, write, by);
    this.#accessed(slot, gfn, write);
    return 'continue';
  }

  #isDevice(slot: EmulatedMemslot | undefined, write: boolean): boolean {
    return slot === undefined || (write && (slot.flags & MEM.READONLY) !== 0);
  }

  /** Whether the guest's access to a page ends the run. What has −errno for a gpa is in no slot, and not private. */
  #faults({ gpa }: Fragment, write: boolean): boolean {
    const { vm } = this;
    const gfn = Math.floor(gpa / vm.pageSize);
    const slot = vm.usableSlot(gfn);
    if (slot === undefined) return vm.isPrivate(gfn);
    if (this.#isDevice(slot, write)) return false;
    return !vm.hasGuestPage(slot, gfn, write) || vm.mustWait(slot, gfn, write, 'guest');
  }

  #accessed(slot: EmulatedMemslot, gfn: number, write: boolean): void {
    if (this.arch.pageAccessed !== undefined) this.arch.pageAccessed(slot, gfn, write);
    else if (write) this.vm.dirtyLog.mark(slot, gfn, this.ring);
  }

  #mmio(gpa: number, bytes: Uint8Array, write: boolean): Outcome {
    if (bytes.length > MMIO_BYTES) {
      const rest = (): Outcome => this.#mmio(gpa + MMIO_BYTES, bytes.subarray(MMIO_BYTES), write);
      return this.#chain(this.#mmio(gpa, bytes.subarray(0, MMIO_BYTES), write), rest);
    }
    if (write && this.vm.bus.write(BigInt(gpa), bytes, false)) return 'continue';
    const { mmio } = KVM_RUN;
    this.#setU64(mmio.phys_addr, BigInt(gpa));
    if (write) this.area.bytes(mmio.data, MMIO_BYTES).set(bytes);
    this.#setU32(mmio.len, bytes.length);
    this.area.view.setUint8(mmio.is_write, write ? 1 : 0);
    this.#pending = () => {
      if (!write) bytes.set(this.area.bytes(mmio.data, bytes.length));
      return 'continue';
    };
    return this.#exit(EXIT.MMIO);
  }

  /** @param size bytes of a unit; those of all if it is one */
  #port(port: number, bytes: Uint8Array, write: boolean, size = bytes.length): Outcome {
    if (write && this.vm.bus.write(BigInt(port), bytes, true)) return 'continue';
    const { io } = KVM_RUN;
    const offset = PIO_PAGE_OFFSET * this.vm.pageSize;
    // What is read is zeros until user space says otherwise.
    this.area.bytes(offset, bytes.length).set(bytes);
    this.area.view.setUint8(io.direction, write ? IO_DIRECTION.OUT : IO_DIRECTION.IN);
    this.area.view.setUint8(io.size, size);
    this.area.view.setUint16(io.port, port, this.vm.machine.littleEndian);
    this.#setU32(io.count, bytes.length / size);
    this.#setU64(io.data_offset, BigInt(offset));
    this.#pending = () => {
      if (!write) bytes.set(this.area.bytes(offset, bytes.length));
      return 'continue';
    };
    return this.#exit(EXIT.IO);
  }

  /** OUTS: a unit at a time. It is KVM that gets at the memory. */
  #outString(op: StringOp, from = 0): Outcome {
    const { port, size, address, count } = op;
    for (let unit = from; unit < count; unit++) {
      const bytes = new Uint8Array(size);
      const load = this.#access(this.#fragments(address + unit * size, bytes, false), false, 'kvm');
      const outcome = this.#chain(load, () => this.#port(port, bytes, true));
      if (outcome !== 'continue') return this.#chain(outcome, () => this.#outString(op, unit + 1));
    }
    return 'continue';
  }

  /** INS: KVM asks for as many units as its buffer holds, or, with units taken for bytes, as the page has left. */
  #inString(op: StringOp, from = 0): Outcome {
    const { port, size, address, count } = op;
    if (from >= count) return 'continue';
    const at = address + from * size;
    const units = Math.min(SMALLEST_PAGE - (at % SMALLEST_PAGE), PORT_BUFFER / size, count - from);
    const bytes = new Uint8Array(units * size);
    // Nobody but user space answers: there is an exit for each part.
    const moved = this.#chain(this.#port(port, bytes, false, size), () =>
      this.#access(this.#fragments(at, bytes, true), true, 'kvm'),
    );
    return this.#chain(moved, () => this.#inString(op, from + units));
  }

  /** A load and a store that nothing comes between. */
  #update({ address, size, change }: GuestOp & { readonly op: 'update' }): Outcome {
    const bytes = new Uint8Array(size);
    return this.#chain(this.#access(this.#fragments(address, bytes, false), false), () => {
      const old = integerOf(bytes, this.vm.machine.littleEndian);
      const after = bytesOf(changed(change(old)), size, this.vm.machine.littleEndian);
      return this.#then(this.#access(this.#fragments(address, after, true), true), () => {
        this.#result = old;
      });
    });
  }

  #hypercall(nr: number, args: readonly bigint[]): Outcome {
    const answered = this.arch.hypercall?.(nr, args);
    if (answered !== undefined) {
      this.#result = answered;
      return 'continue';
    }
    const answer = this.arch.hypercallExit?.(nr, args);
    if (answer === undefined) return 'continue';
    this.#pending = () => {
      this.#result = answer();
      return 'continue';
    };
    return this.#exit(EXIT.PAPR_HCALL);
  }

  #halt(): Outcome {
    return this.arch.exitsOnHalt === true ? this.#exit(EXIT.HLT) : this.#spin();
  }

  /** The guest stays where it is, however often it is run. */
  #spin(): Outcome {
    this.#pending = () => 'spin';
    return 'spin';
  }

  /** A page that the slot promises and the host doesn't have. One that is missing in a guest_memfd is described. */
  #memoryFault(gpa: number, bytes: Uint8Array, write: boolean, by: Accessor): Outcome {
    const { vm } = this;
    this.#page = vm.waits(gpa, write, by);
    if (this.#page !== undefined) return 'wait';
    if (this.vm.machine.emulatesGuestCode) return this.#mmio(gpa, bytes, write);
    return this.#missing(Math.floor(gpa / vm.pageSize));
  }

  #missing(gfn: number): number {
    const { vm } = this;
    if (!vm.isGuestMemfds(vm.usableSlot(gfn), gfn)) return -ERRNO.EFAULT;
    const { memory_fault } = KVM_RUN;
    this.#setU64(memory_fault.flags, BigInt(vm.isPrivate(gfn) ? MEMORY_EXIT_FLAG.PRIVATE : 0));
    this.#setU64(memory_fault.gpa, BigInt(gfn) * BigInt(vm.pageSize));
    this.#setU64(memory_fault.size, BigInt(vm.pageSize));
    this.#setExit(EXIT.MEMORY_FAULT);
    return -ERRNO.EFAULT;
  }

  /** Fetches the next instruction, if it is known where it is. */
  #fetch(again = false): Outcome {
    const { vm, arch } = this;
    const code = this.#code;
    if (code === undefined || arch.noCode === undefined) return 'continue';
    for (let gfn = Math.floor(code.gpa / vm.pageSize); gfn * vm.pageSize < code.gpa + code.size; gfn++) {
      const slot = vm.usableSlot(gfn);
      if (slot !== undefined && vm.hasGuestPage(slot, gfn, false)) {
        if (!vm.mustWait(slot, gfn, false, 'guest')) continue;
        this.#page = vm.waits(gfn * vm.pageSize, false, 'guest');
        return 'wait';
      }
      const isThere = slot !== undefined || vm.isPrivate(gfn);
      if (isThere && !this.vm.machine.emulatesGuestCode) return this.#missing(gfn);
      this.#pending = () => this.#refetch();
      return this.#exit(arch.noCode(again));
    }
    return 'continue';
  }

  /** After a fetch that failed: where the instruction is there now, the guest takes an exception all the same. */
  #refetch(): Outcome {
    const fetched = this.#fetch(true);
    return fetched === 'continue' ? this.#faulted(this.arch.missingCode!()) : fetched;
  }

  #exit(reason: number): Outcome {
    this.#setExit(reason);
    return 'exit';
  }

  #setExit(reason: number): void {
    this.#setU32(KVM_RUN_S390X.exit_reason, reason);
  }

  #setU32(offset: number, value: number): void {
    this.area.view.setUint32(offset, value, this.vm.machine.littleEndian);
  }

  #setU64(offset: number, value: bigint): void {
    this.area.view.setBigUint64(offset, value, this.vm.machine.littleEndian);
  }
}
