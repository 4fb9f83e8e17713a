import {
  encodeHpte,
  HPTES_PER_GROUP,
  type Hpte,
  primaryGroup,
  VRMA_VSID,
  vrmaSegment,
} from '../../../../../lib/arch/ppc64/model/index.ts';
import { Kvm, type Vcpu, type Vm } from '../../../../../lib/index.ts';
import { type GuestOp, type GuestProgram, hypercall, spin, store } from '../../../../../lib/raw.ts';

export const ORDER = 18;
export const PAGE_SIZES = [4096, 65536] as const;
const MEMORY_SIZE = 16 << 20;
const H_ENTER = 8;
const H_REMOVE = 4;
const H_EXACT = 0x80_0000_0000n;

/** A VM with memory at 0 and a table, on an emulated host. */
export function hptVm(pageSize: number, order: number | 'radix' = ORDER): { kvm: Kvm; vm: Vm } {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'ppc64', pageSize });
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(MEMORY_SIZE));
  if (order !== 'radix') vm.hpt.allocate(order);
  return { kvm, vm };
}

/** The entry that maps a real-mode address to itself, and the slot where the processor finds it. */
export function identity(
  ea: number,
  fields: Partial<Parameters<typeof encodeHpte>[0]> = {},
): { slot: number; entry: Hpte } {
  const entry = encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ea, ra: ea, bolted: true, pp: 0, ...fields });
  return { slot: primaryGroup(vrmaSegment(), ea, ORDER) * HPTES_PER_GROUP, entry };
}

/** One chunk with one entry. */
export function chunkOf({ slot, entry }: { slot: number; entry: Hpte }): Uint8Array {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt32LE(slot);
  bytes.writeUInt16LE(1, 4);
  bytes.writeBigUInt64BE(entry.v, 8);
  bytes.writeBigUInt64BE(entry.r, 16);
  return bytes;
}

/** Runs guest operations to their end on a vCPU of the VM's. */
export function runGuest(kvm: Kvm, vcpu: Vcpu, ...ops: readonly GuestOp[]): void {
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* (): GuestProgram {
      yield* ops;
      yield spin;
    })(),
  );
  vcpu.runSync();
}

export const enter = ({ slot, entry }: { slot: number; entry: Hpte }): GuestOp =>
  hypercall(H_ENTER, H_EXACT, BigInt(slot), entry.v, entry.r);
export const remove = (slot: number): GuestOp => hypercall(H_REMOVE, 0n, BigInt(slot), 0n);
export const touch = (address: number): GuestOp => store(address, 4, 1n);

/** Everything that an async iterable gives. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
