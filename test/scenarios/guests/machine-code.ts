import type { KvmCalls } from '../../../lib/calls/kvm-calls.ts';
import { DONE_ADDRESS, PAUSE_ADDRESS, type ScriptOp } from '../scenario.ts';

type Size = 1 | 2 | 4;

/** Code of 32-bit words that says what scripts do, on a machine without ports whose `pause` and `done` are MMIO. */
export interface WordMachine {
  readonly name: string;
  /** Puts a constant into the register that holds values, or the one that holds addresses. */
  setValue(code: number[], value: number): void;
  setAddress(code: number[], address: number): void;
  /** Instructions that move the value to where the address says, and back. */
  readonly store: Readonly<Record<Size, number>>;
  readonly load: Readonly<Record<Size, number>>;
  /** A branch to itself. */
  readonly spin: number;
  /** What only this machine has; false for an operation that it hasn't either. */
  readonly own?: (code: number[], op: ScriptOp) => boolean;
}

/** A script as machine code, in little-endian words. */
export function assembleWords(machine: WordMachine, ops: readonly ScriptOp[]): Uint8Array {
  const code: number[] = [];
  const store = (address: number, size: Size, value: number): void => {
    machine.setAddress(code, address);
    machine.setValue(code, value);
    code.push(machine.store[size]);
  };
  for (const op of ops) {
    switch (op.op) {
      case 'store':
        store(op.address, op.size, op.value);
        break;
      case 'copy':
        machine.setAddress(code, op.from);
        code.push(machine.load[op.size]);
        machine.setAddress(code, op.to);
        code.push(machine.store[op.size]);
        break;
      case 'pause':
        store(PAUSE_ADDRESS, 1, 0);
        break;
      case 'done':
        store(DONE_ADDRESS, 1, 0);
        code.push(machine.spin);
        break;
      case 'spin':
        code.push(machine.spin);
        break;
      default:
        if (machine.own?.(code, op) !== true) throw new Error(`${machine.name} has no '${op.op}'`);
    }
  }
  return words(code, true);
}

/** Instruction words as bytes. */
export function words(code: readonly number[], littleEndian: boolean): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(code.length * 4));
  for (const [i, word] of code.entries()) bytes.setUint32(i * 4, word, littleEndian);
  return new Uint8Array(bytes.buffer);
}

/** Fails the scenario if a call that makes a vCPU ready was refused. */
export function orFail(result: number, what: string): void {
  if (result < 0) throw new Error(`The guest could not be loaded: ${what} gave ${result}`);
}

/** Puts machine code where it is executed. */
export function writeCode(calls: KvmCalls, hva: number, code: Uint8Array): void {
  const written = calls.writeMemory(hva, code);
  if (written !== code.length)
    throw new Error(`The guest's ${code.length} bytes of code don't fit: ${written} written`);
}

/**
 * vCPUs that were given code before. An access that led to an exit is completed by the next KVM_RUN, which would spoil the
 * registers that are set for new code, so that one has to come first.
 */
export class UsedVcpus {
  readonly #calls: KvmCalls;
  readonly #used = new Set<number>();

  constructor(calls: KvmCalls) {
    this.#calls = calls;
  }

  created(vcpu: number): void {
    this.#used.delete(vcpu);
  }

  beforeLoading(vcpu: number): void {
    if (this.#used.has(vcpu)) {
      this.#calls.kick(vcpu);
      this.#calls.run(vcpu, 0);
    }
    this.#used.add(vcpu);
  }
}
