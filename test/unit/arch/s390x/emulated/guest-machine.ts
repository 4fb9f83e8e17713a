import { expect } from 'vitest';
import { type GuestProgram, spin } from '../../../../../lib/emulated/guest.ts';
import { Machine, MIB } from './machine.ts';

export const SEGMENTS = 0x10_0000;
export const PAGES = 0x11_0000;
export const DATA = 0x18_0000;
/** Behind the tables, so that real 0 is there. */
export const PREFIX = 0x20_0000;

/**
 * A machine whose vCPU runs a guest with these registers. Logical 0 to 2 MiB are, with DAT on, the 16 frames from DATA on,
 * again and again.
 */
export function running(
  psw: bigint,
  guest: () => GuestProgram,
  options: {
    release?: string;
    cmma?: boolean;
    flags?: number;
    cr0?: bigint;
    /** What happens before the guest begins. */
    before?: (machine: Machine) => void;
  } = {},
): Machine {
  const machine = new Machine(options);
  machine.latch(psw, { 0: options.cr0 ?? 0xe0n, 1: BigInt(SEGMENTS) | 3n }, PREFIX);
  machine.addMemory(options.flags);
  for (let i = 0; i < 2048; i++) machine.pokeDoubleword(SEGMENTS + i * 8, 0x20n);
  for (const i of [0, 1]) machine.pokeDoubleword(SEGMENTS + i * 8, BigInt(PAGES));
  for (let i = 0; i < 256; i++) machine.pokeDoubleword(PAGES + i * 8, BigInt(DATA + (i % 16) * 4096));
  options.before?.(machine);
  machine.kernel.loadGuest(machine.vcpu, guest());
  return machine;
}

/** Runs a guest that collects what its instructions gave. */
export function results(
  psw: bigint,
  guest: (push: (value: unknown) => void) => GuestProgram,
  options?: Parameters<typeof running>[2],
): { machine: Machine; found: unknown[] } {
  const found: unknown[] = [];
  const machine = running(
    psw,
    function* () {
      yield* guest((value) => found.push(value));
      yield spin;
    },
    options,
  );
  machine.kernel.run(machine.vcpu, 0);
  return { machine, found };
}

/** Makes a slot of 1 MiB at 4 MiB behind which user space has nothing mapped any more. */
export function addUnmapped(machine: Machine): void {
  const hva = machine.map(MIB);
  expect(machine.slot(1, 4 * MIB, MIB, hva)).toBe(0);
  expect(machine.kernel.munmap(hva, MIB)).toBe(0);
}
