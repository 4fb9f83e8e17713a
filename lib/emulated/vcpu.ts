import { ERRNO } from '../uapi/errno.ts';
import { DIRTY_LOG_PAGE_OFFSET, EXIT, MEM, PIO_PAGE_OFFSET } from '../uapi/flags.ts';
import { IO_DIRECTION, KVM_RUN, KVM_RUN_S390X, REGS_SIZE } from '../uapi/structs.ts';
import type { ArchVcpu } from './arch-state.ts';
import { type MapSource, SharedArea } from './backing.ts';
import type { EmulatedDirtyRing } from './dirty-ring.ts';
import { checkOp, GuestFault, type GuestOp, type GuestProgram, type GuestResult } from './guest.ts';
import type { Machine } from './machine.ts';
import type { EmulatedMemslot } from './memslots.ts';
import type { OpenFile } from './open-file.ts';
import type { EmulatedVm } from './vm.ts';

/** An asynchronous run gives the event loop a turn after so many operations. */
const OPS_PER_TURN = 1000;

/** What a guest maps no less of, however large the host's pages are. */
const SMALLEST_PAGE = 4096;

/** One access, or the rest of one, that does not cross a page; a negative `gpa` is −errno instead. */
interface Fragment {
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

/** What a step of the guest led to: on with the program, out to user space, out before the guest was entered, or −errno. */
type Outcome = 'continue' | 'exit' | 'spin' | 'immediate' | number;

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
  #result: GuestResult;
  /** What is left of an access that led to an exit, done before the program goes on. */
  #pending: (() => Outcome) | undefined;
  #running = false;
  #kicked = false;
  /** The run under way has not entered the guest yet. */
  #entering = false;
  /** The run under way has come to its end, which its caller has not heard of yet. */
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(vm: EmulatedVm, id: number, createArch: (vcpu: EmulatedVcpu) => Arch) {
    const { machine } = vm;
    this.vm = vm;
    this.id = id;
    this.area = new SharedArea(machine.vcpuMmapSize);
    this.ring = vm.dirtyLog.newRing();
    const sizes = REGS_SIZE[machine.arch];
    this.regs = new Uint8Array(sizes.regs ?? 0);
    this.sregs = new Uint8Array(sizes.sregs ?? 0);
    vm.vcpus.set(id, this);
    this.arch = createArch(this);
  }

  get #machine(): Machine {
    return this.vm.machine;
  }

  get running(): boolean {
    return this.#running;
  }

  mmap(offset: number, length: number): MapSource | number {
    const { pageSize, coalescedMmioPage } = this.#machine;
    const page = offset / pageSize;
    if (page >= DIRTY_LOG_PAGE_OFFSET && this.ring !== undefined) {
      return { backing: this.ring.area.backing, offset: 0 };
    }
    if (page === coalescedMmioPage && page !== 0 && length <= pageSize) {
      return { backing: this.vm.bus.ring!.backing, offset: 0 };
    }
    return { backing: this.area.backing, offset };
  }

  /** What the guest executes from the next KVM_RUN on. */
  load(program: GuestProgram): void {
    this.#program = program;
    this.arch.loaded?.();
    this.#result = undefined;
    this.#pending = undefined;
  }

  /** KVM_RUN. A program that spins is interrupted at once: nothing else could happen on this thread. */
  run(timeoutMs: number): number {
    if (this.#running) return -ERRNO.EBUSY;
    this.#running = true;
    this.#entering = true;
    const deadline = timeoutMs === 0 ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs;
    try {
      let outcome: Outcome;
      do {
        outcome = this.#turn();
      } while (outcome === 'continue' && performance.now() < deadline);
      return this.#finish(outcome);
    } finally {
      // Also where the program itself threw.
      this.#running = false;
    }
  }

  async runAsync(): Promise<number> {
    if (this.#running) return -ERRNO.EBUSY;
    this.#running = true;
    this.#entering = true;
    try {
      let outcome: Outcome;
      do {
        outcome = this.#turn();
        this.#ended = outcome !== 'continue' && outcome !== 'spin';
        // As after a run on a thread, nobody goes on before the event loop has turned: guests that exit in a loop starve nothing.
        await new Promise<void>((turn) => setImmediate(turn));
      } while (outcome === 'continue' && !this.#kicked);
      if (outcome === 'spin' && !this.#kicked) {
        await new Promise<void>((wake) => {
          this.#wake = wake;
        });
      }
      return this.#finish(outcome);
    } finally {
      this.#running = false;
      this.#ended = false;
    }
  }

  /** No operation of the guest's is carried out any more: the run under way ends with EINTR. */
  stop(): number {
    return this.#running && !this.#ended ? this.kick() : 0;
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
      const outcome = pending();
      if (outcome === 'spin' && this.#immediateExit) return this.#interrupted();
      if (outcome !== 'continue') return outcome;
      if (this.#pending !== pending && this.#pending !== undefined) return outcome;
      this.#pending = undefined;
    }
    for (let i = 0; i < OPS_PER_TURN; i++) {
      if (this.#immediateExit) return this.#interrupted();
      this.#entering = false;
      if (this.ring?.checkRequest() === true) return this.#exit(EXIT.DIRTY_RING_FULL);
      const outcome = this.#step();
      if (outcome !== 'continue' || this.#pending !== undefined) return outcome;
    }
    return 'continue';
  }

  #interrupted(): Outcome {
    return this.#entering ? 'immediate' : -ERRNO.EINTR;
  }

  get #immediateExit(): boolean {
    return this.area.view.getUint8(KVM_RUN.immediate_exit) !== 0;
  }

  #step(): Outcome {
    if (this.#program === undefined) return -ERRNO.EINTR;
    const next = this.#program.next(this.#result);
    if (next.done === true) return this.#halt();
    this.#result = undefined;
    return this.#attempt(next.value);
  }

  /** Executes an operation. One that made the run fail is executed again by the next run, as an instruction is. */
  #attempt(op: GuestOp): Outcome {
    return this.#guarded(op);
  }

  /** Does some of an operation's work, or all of it; what faults in it is the program's. */
  #guarded(op: GuestOp, work?: () => Outcome): Outcome {
    try {
      const outcome = work === undefined ? this.#execute(op) : work();
      if (typeof outcome === 'number') this.#tryAgain(op);
      return outcome;
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault;
      const after = this.#program!.throw(fault);
      return after.done === true ? this.#halt() : this.#attempt(after.value);
    }
  }

  // On its own: where a closure is made each operation costs one, whether it is made or not.
  #tryAgain(op: GuestOp): void {
    this.#pending = () => this.#attempt(op);
  }

  #execute(op: GuestOp): Outcome {
    checkOp(op);
    switch (op.op) {
      case 'store':
        return this.#access(this.#fragments(op.address, this.#bytesOf(op.value, op.size), true), true);
      case 'load': {
        const bytes = new Uint8Array(op.size);
        return this.#then(this.#access(this.#fragments(op.address, bytes, false), false), () => {
          this.#result = this.#valueOf(bytes);
        });
      }
      case 'out':
        return this.#port(op.port, this.#bytesOf(op.value, op.size), true);
      case 'in': {
        const bytes = new Uint8Array(op.size);
        return this.#then(this.#port(op.port, bytes, false), () => {
          this.#result = this.#valueOf(bytes);
        });
      }
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

  /** Does something once an access is complete, whether now or when user space has done its part. */
  #then(outcome: Outcome, complete: () => void): Outcome {
    if (outcome === 'continue') complete();
    else if (outcome === 'exit') {
      const rest = this.#pending!;
      this.#pending = () => this.#then(rest(), complete);
    }
    return outcome;
  }

  /** Executes an instruction that only the architecture knows. One that has to wait is tried again after a turn. */
  #architectures(op: GuestOp & { readonly op: 'instruction' }): Outcome {
    if (this.arch.instruction === undefined) throw new GuestFault(0, `${this.#machine.arch} has no ${op.name} here`);
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
    if (found === undefined) return this.#attempt(op);
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

  #access(fragments: Fragment[], write: boolean): Outcome {
    for (let fragment = fragments.shift(); fragment !== undefined; fragment = fragments.shift()) {
      const outcome = write ? this.#store(fragment) : this.#loadFrom(fragment);
      if (outcome !== 'continue') {
        const first = this.#pending;
        this.#pending = () => {
          first?.();
          this.#pending = undefined;
          return this.#access(fragments, write);
        };
        return outcome;
      }
    }
    return 'continue';
  }

  #store({ gpa, bytes }: Fragment): Outcome {
    if (gpa < 0) return gpa;
    const { vm } = this;
    const gfn = Math.floor(gpa / vm.pageSize);
    const slot = vm.usableSlot(gfn);
    if (slot === undefined || (slot.flags & MEM.READONLY) !== 0) return this.#mmio(gpa, bytes, true);
    if (vm.moveGuest(slot, gpa, bytes, true) !== bytes.length) {
      return this.#memoryFault(gpa, bytes, true);
    }
    this.#accessed(slot, gfn, true);
    return 'continue';
  }

  #loadFrom({ gpa, bytes }: Fragment): Outcome {
    if (gpa < 0) return gpa;
    const { vm } = this;
    const gfn = Math.floor(gpa / vm.pageSize);
    const slot = vm.usableSlot(gfn);
    if (slot === undefined) return this.#mmio(gpa, bytes, false);
    if (vm.moveGuest(slot, gpa, bytes, false) !== bytes.length) return this.#memoryFault(gpa, bytes, false);
    this.#accessed(slot, gfn, false);
    return 'continue';
  }

  #accessed(slot: EmulatedMemslot, gfn: number, write: boolean): void {
    if (this.arch.pageAccessed !== undefined) this.arch.pageAccessed(slot, gfn, write);
    else if (write) this.vm.dirtyLog.mark(slot, gfn, this.ring);
  }

  #mmio(gpa: number, bytes: Uint8Array, write: boolean): Outcome {
    const missing = this.arch.missingMemory?.(gpa);
    if (missing !== undefined) throw missing;
    if (write && this.vm.bus.write(BigInt(gpa), bytes, false)) return 'continue';
    const { mmio } = KVM_RUN;
    this.#setU64(mmio.phys_addr, BigInt(gpa));
    if (write) this.area.bytes(mmio.data, 8).fill(0).set(bytes);
    this.#setU32(mmio.len, bytes.length);
    this.area.view.setUint8(mmio.is_write, write ? 1 : 0);
    this.#pending = () => {
      if (!write) bytes.set(this.area.bytes(mmio.data, bytes.length));
      return 'continue';
    };
    return this.#exit(EXIT.MMIO);
  }

  #port(port: number, bytes: Uint8Array, write: boolean): Outcome {
    if (write && this.vm.bus.write(BigInt(port), bytes, true)) return 'continue';
    const { io } = KVM_RUN;
    const offset = PIO_PAGE_OFFSET * this.vm.pageSize;
    if (write) this.area.bytes(offset, bytes.length).set(bytes);
    this.area.view.setUint8(io.direction, write ? IO_DIRECTION.OUT : IO_DIRECTION.IN);
    this.area.view.setUint8(io.size, bytes.length);
    this.area.view.setUint16(io.port, port, this.#machine.littleEndian);
    this.#setU32(io.count, 1);
    this.#setU64(io.data_offset, BigInt(offset));
    this.#pending = () => {
      if (!write) bytes.set(this.area.bytes(offset, bytes.length));
      return 'continue';
    };
    return this.#exit(EXIT.IO);
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

  /** A page that the slot promises and the host doesn't have. */
  #memoryFault(gpa: number, bytes: Uint8Array, write: boolean): Outcome {
    return this.#machine.emulatesGuestCode ? this.#mmio(gpa, bytes, write) : -ERRNO.EFAULT;
  }

  #exit(reason: number): Outcome {
    this.#setExit(reason);
    return 'exit';
  }

  #setExit(reason: number): void {
    this.#setU32(KVM_RUN_S390X.exit_reason, reason);
  }

  #setU32(offset: number, value: number): void {
    this.area.view.setUint32(offset, value, this.#machine.littleEndian);
  }

  #setU64(offset: number, value: bigint): void {
    this.area.view.setBigUint64(offset, value, this.#machine.littleEndian);
  }

  #bytesOf(value: bigint, size: number): Uint8Array {
    const all = new DataView(new ArrayBuffer(8));
    const little = this.#machine.littleEndian;
    all.setBigUint64(0, BigInt.asUintN(64, value), little);
    return new Uint8Array(all.buffer, little ? 0 : 8 - size, size);
  }

  #valueOf(bytes: Uint8Array): bigint {
    const all = new Uint8Array(8);
    const little = this.#machine.littleEndian;
    all.set(bytes, little ? 0 : 8 - bytes.length);
    return new DataView(all.buffer).getBigUint64(0, little);
  }
}
