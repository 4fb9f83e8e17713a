import { GuestFault, type GuestInstruction } from '../../../emulated/guest.ts';
import type { EmulatedVcpu } from '../../../emulated/vcpu.ts';
import { KVM_REGS_PPC64 } from '../../../uapi/structs.ts';
import type { GuestAccess } from './guest-access.ts';
import { decodeLoadStore, isCacheOperation, isPrefix, type LoadStore, looksLikeStore } from './instruction.ts';
import { DSISR, INTERRUPT } from './interrupts.ts';

const GPRS = 32;

/** Guest code that is in the guest's memory: loads and stores of general-purpose registers, one at a time. */
export class GuestCode {
  readonly #vcpu: EmulatedVcpu;
  readonly #access: GuestAccess;

  constructor(vcpu: EmulatedVcpu, access: GuestAccess) {
    this.#vcpu = vcpu;
    this.#access = access;
  }

  /** What the processor executes at an address; undefined where that is no load or store. */
  decode(address: number): GuestInstruction | undefined {
    const word = this.#fetch(address);
    // POWER9 has no prefixed instructions.
    if (isPrefix(word)) throw new GuestFault(INTERRUPT.PROGRAM, `illegal instruction at 0x${address.toString(16)}`);
    const found = decodeLoadStore(word, (number) => this.gpr(number));
    return found === undefined ? undefined : this.#instruction(found, found.address);
  }

  /**
   * What KVM makes of an access that found no memory, at `ea`: it reads the instruction again, which another vCPU may
   * have changed since, and emulates what is there now if it looks like an access of the same direction. How many
   * bytes that one accesses, and where, is not compared. Undefined where KVM resumes the guest, which then executes
   * what is there: the instruction cannot be read, its direction is another, or since 6.4 the length of the instruction.
   */
  emulation(address: number, ea: number, write: boolean): GuestInstruction | undefined {
    let word: number;
    try {
      word = this.#fetch(address);
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault;
      return undefined;
    }
    const { release } = this.#vcpu.vm.machine;
    // What faulted had no prefix.
    if (isPrefix(word) && release.since(6, 4)) return undefined;
    if (looksLikeStore(word) !== write) return undefined;
    if (isCacheOperation(word)) {
      return { write, address: ea, bytes: new Uint8Array(0), accepted: () => {}, complete: () => this.#gprs() };
    }
    const found = decodeLoadStore(word, (number) => this.gpr(number));
    if (found === undefined || !found.emulated) {
      const what = `KVM doesn't emulate the instruction at 0x${address.toString(16)}`;
      throw this.#access.dataStorage(ea, DSISR.BAD_ACCESS, write, what);
    }
    return this.#instruction(found, release.since(6, 8) ? BigInt(ea) : found.address);
  }

  get pc(): bigint {
    return this.#view().getBigUint64(KVM_REGS_PPC64.pc, true);
  }

  /** Fetches from the PC, which sets R in the page's entry. */
  touch(): void {
    this.#access.translate(Number(this.pc), 'fetch');
  }

  gpr(number: number): bigint {
    return this.#view().getBigUint64(KVM_REGS_PPC64.gpr + 8 * number, true);
  }

  setGpr(number: number, value: bigint): void {
    this.#view().setBigUint64(KVM_REGS_PPC64.gpr + 8 * number, BigInt.asUintN(64, value), true);
  }

  #gprs(): readonly bigint[] {
    return Array.from({ length: GPRS }, (_, number) => this.gpr(number));
  }

  /** `updated` is what the base register of an update form gets. */
  #instruction(found: LoadStore, updated: bigint): GuestInstruction {
    const { write, address } = found;
    const bytes = write ? this.#stored(found) : new Uint8Array(found.size);
    return {
      write,
      address: Number(address),
      bytes,
      accepted: () => {
        if (found.update) this.setGpr(found.base, updated);
      },
      complete: () => {
        if (!write) this.#loaded(found, bytes);
        return this.#gprs();
      },
    };
  }

  /** What a store puts into memory. The lower half of a pair is that of the second register. */
  #stored({ target, size, reversed }: LoadStore): Uint8Array {
    const value = new DataView(new ArrayBuffer(16));
    value.setBigUint64(0, this.gpr(size === 16 ? target + 1 : target), true);
    if (size === 16) value.setBigUint64(8, this.gpr(target), true);
    const bytes = new Uint8Array(value.buffer, 0, size);
    return reversed ? bytes.reverse() : bytes;
  }

  #loaded({ target, size, reversed, signed }: LoadStore, bytes: Uint8Array): void {
    const value = new DataView(new ArrayBuffer(16));
    new Uint8Array(value.buffer).set(reversed ? bytes.toReversed() : bytes);
    const low = value.getBigUint64(0, true);
    if (size === 16) this.setGpr(target + 1, low);
    if (size === 16) this.setGpr(target, value.getBigUint64(8, true));
    else this.setGpr(target, signed ? BigInt.asIntN(8 * size, low) : low);
  }

  #fetch(address: number): number {
    const { vm } = this.#vcpu;
    const gpa = this.#access.translate(address, 'fetch');
    const gfn = Math.floor(gpa / vm.pageSize);
    // Where there is none, and of −errno.
    const slot = vm.usableSlot(gfn);
    const word = new DataView(new ArrayBuffer(4));
    const into = new Uint8Array(word.buffer);
    if (slot === undefined || vm.memory.read(vm.hostAddress(slot, gfn) + (gpa % vm.pageSize), into) !== 4) {
      throw new GuestFault(INTERRUPT.INSTRUCTION_STORAGE, `no code can be fetched from 0x${address.toString(16)}`);
    }
    return word.getUint32(0, true);
  }

  #view(): DataView {
    const { regs } = this.#vcpu;
    return new DataView(regs.buffer, regs.byteOffset, regs.byteLength);
  }
}
