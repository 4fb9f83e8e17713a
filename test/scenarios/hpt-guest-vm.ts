import { EXIT, MAP, MEM, PROT } from '../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../lib/uapi/structs.ts';
import { chunk, HptVm, MEMORY_SIZE, vrma } from './hpt-vm.ts';
import { DONE_ADDRESS, PAUSE_ADDRESS, type ScenarioHost, type ScriptOp } from './scenario.ts';

/** Order of the guests' tables. */
export const ORDER = 18;
const RUN_MS = 3000;
/** Where the guest's code is. Its entry has R already, which fetching would set. */
export const CODE = 0x1000;

/** A VM with a hashed page table and a guest in real mode. */
export class HptGuest extends HptVm {
  readonly vcpu: number;
  readonly #run: number;
  readonly #host: ScenarioHost;

  constructor(s: ScenarioHost, order?: number) {
    super(s, order, MEM.LOG_DIRTY_PAGES);
    this.#host = s;
    this.vcpu = s.vcpu(this.vm);
    const { pageSize } = s.calls;
    this.#run = s.calls.mmap(pageSize, PROT.READ | PROT.WRITE, MAP.SHARED, this.vcpu, 0, 0, 0);
  }

  /** Entries for the code, for where guests pause and end, and for pages, with no R and no C. */
  map(...pages: readonly number[]): void {
    this.real(CODE, 0x110n, 0);
    for (const ea of [PAUSE_ADDRESS, DONE_ADDRESS]) this.real(ea, 0x28n, 1);
    for (const ea of pages) this.real(ea, 0x10n, 2);
  }

  /** One bolted entry that maps a real-mode address, to itself if nothing else is said. */
  real(ea: number, flags: bigint, place: number, ra = ea): void {
    const [slot, [v]] = vrma(ORDER, BigInt(ea), place);
    this.write(chunk(slot, [[v, BigInt(ra) | flags | 2n]]));
  }

  load(ops: readonly ScriptOp[]): void {
    this.#host.load(this.vm, this.vcpu, this.hva + CODE, CODE, ops);
  }

  /** KVM_RUN, and what it says about the exit. */
  run(timeoutMs = RUN_MS): number {
    const { calls } = this.#host;
    calls.run(this.vcpu, timeoutMs);
    const reason = new Uint8Array(4);
    calls.readMemory(this.#run + KVM_RUN.exit_reason, reason);
    return reason[0]!;
  }

  /** KVM_RUN to an MMIO exit: phys_addr, len, is_write; and of a store so many bytes of data. */
  mmio(stored = 0): void {
    const { calls } = this.#host;
    this.run();
    calls.readMemory(this.#run + KVM_RUN.mmio.phys_addr, new Uint8Array(8));
    if (stored > 0) calls.readMemory(this.#run + KVM_RUN.mmio.data, new Uint8Array(stored));
    calls.readMemory(this.#run + KVM_RUN.mmio.len, new Uint8Array(5));
  }

  /** KVM_RUN to an MMIO exit, whatever it is: a load is answered. Returns phys_addr; undefined if there was another exit. */
  access(answer: Uint8Array): number | undefined {
    const { calls } = this.#host;
    if (this.run() !== EXIT.MMIO) return undefined;
    const [address, about] = [new BigUint64Array(1), new Uint8Array(5)];
    calls.readMemory(this.#run + KVM_RUN.mmio.phys_addr, new Uint8Array(address.buffer));
    calls.readMemory(this.#run + KVM_RUN.mmio.len, about);
    const [length = 0, , , , isWrite] = about;
    const data = this.#run + KVM_RUN.mmio.data;
    if (isWrite === 1) calls.readMemory(data, new Uint8Array(length));
    else calls.writeMemory(data, answer.subarray(0, length));
    return Number(address[0]);
  }

  /** KVM_RUN to a hypercall's exit: its number and first arguments, and the answer. */
  hypercall(answer: bigint): void {
    const { calls } = this.#host;
    this.run();
    calls.readMemory(this.#run + KVM_RUN.papr_hcall.nr, new Uint8Array(8));
    calls.readMemory(this.#run + KVM_RUN.papr_hcall.args, new Uint8Array(16));
    calls.writeMemory(this.#run + KVM_RUN.papr_hcall.ret, new Uint8Array(BigUint64Array.of(answer).buffer));
  }

  answer(bytes: Uint8Array): void {
    this.#host.calls.writeMemory(this.#run + KVM_RUN.mmio.data, bytes);
  }

  dirty(): void {
    this.#host.dirtyLog(this.vm, 0, MEMORY_SIZE / this.#host.calls.pageSize);
  }
}

export const store = (address: number, value: number, size: 1 | 2 | 4 = 4): ScriptOp => ({
  op: 'store',
  address,
  size,
  value,
});
export const copy = (from: number, to: number, size: 1 | 2 | 4 = 4): ScriptOp => ({ op: 'copy', from, to, size });
export const pause: ScriptOp = { op: 'pause' };
export const done: ScriptOp = { op: 'done' };
