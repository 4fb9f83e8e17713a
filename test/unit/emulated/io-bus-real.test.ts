import { expect, it } from 'vitest';
import { emulationOf } from '../../../lib/backends/emulation.ts';
import { checked, EmulatedKernel, type KvmCalls, loadNative } from '../../../lib/raw.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { numbers } from './numbers.ts';

const native = loadNative();
const missing = whyNoKvm(native);

/** A VM with eventfds, on one of the kernels. */
function world(calls: KvmCalls, irqchip: boolean) {
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  if (irqchip) calls.createIrqchip(vm);
  return { calls, kvm, vm, eventfds: [0, 1, 2, 3].map(() => calls.eventfd(0)) };
}

type World = ReturnType<typeof world>;

/** One of the eventfds, or what is none. */
const descriptor = ({ vm, eventfds }: World, index: number): number => eventfds[index] ?? vm;

/** Adds to an eventfd's count, or takes it where nothing is to be added: a count or −errno. */
function count(on: World, which: number, add: bigint): number | bigint {
  const fd = on.eventfds[which];
  if (fd === undefined) return 0;
  const value = new BigUint64Array([add]);
  const bytes = new Uint8Array(value.buffer);
  if (add !== 0n) return on.calls.write(fd, bytes);
  const result = on.calls.read(fd, bytes);
  return result < 0 ? result : value[0]!;
}

const whyNot = missing ?? ('calls' in native && native.calls.arch !== 'x86_64' ? 'this is not x86_64' : undefined);
const why = whyNot === undefined ? '' : ` (${whyNot})`;

it.skipIf(whyNot !== undefined).each([1, 2, 3])(
  `ioeventfds and irqfds of random lengths, matches, buses and resampling, signalled and read, are answered as by the real kernel${why}, seed %i`,
  (seed) => {
    if (!('calls' in native)) throw new Error(native.reason);
    const { below, pick } = numbers(seed);
    const real = native.calls;
    const emulated = checked(new EmulatedKernel(emulationOf(real)));
    for (let vm = 0; vm < 6; vm++) {
      const irqchip = below(2) === 1;
      const worlds = [world(real, irqchip), world(emulated, irqchip)];
      for (let i = 0; i < 200; i++) {
        const which = below(5);
        let ask: (world: World) => number | bigint;
        let what: string;
        const kind = below(5);
        if (kind === 0) {
          const value = below(3) === 0 ? 0n : BigInt(1 + below(9));
          what = `eventfd ${which}: ${value === 0n ? 'read' : `write ${value}`}`;
          ask = (on) => count(on, which, value);
        } else if (kind < 4) {
          const [addr, length] = [
            pick([0x1000, 0x1000, 0x1004, 0x2000, 0xffff_ffff_ffff_ffffn, 0x3f8]),
            pick([0, 1, 2, 4, 8, 3]),
          ];
          const [flags, match] = [
            pick([0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 12, 16, 32]),
            pick([0, 1, 0x1ff, 0x1_0000_0001n]),
          ];
          what = `ioeventfd(${addr}, ${length}, eventfd ${which}, flags ${flags}, ${match})`;
          ask = (on) => on.calls.ioeventfd(on.vm, addr, length, descriptor(on, which), flags, match);
        } else {
          const [gsi, flags, resample] = [pick([0, 5, 23, 24, 4095, 4096, 0xffff_ffff]), below(5), below(6)];
          what = `irqfd(eventfd ${which}, ${gsi}, flags ${flags}, resample ${resample})`;
          ask = (on) =>
            on.calls.irqfd(on.vm, descriptor(on, which), gsi, flags, resample === 5 ? -1 : descriptor(on, resample));
        }
        const [theirs, ours] = worlds.map(ask);
        expect(ours, `VM ${vm}, call ${i}: ${what}`).toBe(theirs);
      }
      // The VM goes, and nobody takes what is signalled any more.
      for (const { calls, vm: fd } of worlds) calls.close(fd);
      for (const which of [0, 1, 2, 3]) {
        for (const add of [0n, 5n, 0n]) {
          const [theirs, ours] = worlds.map((on) => count(on, which, add));
          expect(ours, `VM ${vm} is closed, eventfd ${which}`).toBe(theirs);
        }
      }
      for (const { calls, kvm, eventfds } of worlds) for (const each of [...eventfds, kvm]) calls.close(each);
    }
  },
);
