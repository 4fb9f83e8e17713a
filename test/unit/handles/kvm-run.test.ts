import { describe, expect, it } from 'vitest';
import { KvmRun } from '../../../lib/handles/kvm-run.ts';
import { CoalescedMmioRing } from '../../../lib/memory/coalesced-mmio.ts';
import { DirtyRing } from '../../../lib/memory/dirty-ring.ts';
import { type Arch, EXIT } from '../../../lib/raw.ts';
import { type Places, whileFlipping } from '../flipping.ts';

const AREA = 3 * 4096;
const EXIT_REASON = 8;
/** Of struct kvm_run: the union of what exits say. */
const UNION = 32;
const ARCHES: readonly Arch[] = ['x86_64', 's390x'];

describe.each(ARCHES)('what another thread writes while it is read, on %s', (arch) => {
  it('takes no access of an exit out of the kvm_run area', async () => {
    const buffer = new SharedArrayBuffer(AREA);
    const run = new KvmRun(buffer, arch);
    // In either byte order.
    const reasons = [EXIT.MMIO, EXIT.IO, EXIT.MEMORY_FAULT, EXIT.PAPR_HCALL, EXIT.S390_SIEIC].flatMap((reason) => [
      reason,
      (reason << 24) >>> 0,
    ]);
    const seen = new Set<string>();
    const { attempts } = await whileFlipping(
      buffer,
      [
        [EXIT_REASON, 4, reasons],
        ...Array.from(
          { length: 12 },
          (_, i) => [UNION + 4 * i, 4, i % 3 === 0 ? [0, 1, 4, 0xffff_ffff] : undefined] as const,
        ),
      ],
      () => {
        const exit = run.exit();
        seen.add(exit.reason);
        if (exit.reason === 'MMIO') {
          expect(exit.data.length).toBe(exit.size);
          expect(exit.size).toBeLessThanOrEqual(8);
        }
        if (exit.reason === 'IO') {
          expect(exit.data.length).toBe(exit.size * exit.count);
          expect(exit.data.byteOffset + exit.data.length).toBeLessThanOrEqual(AREA);
        }
      },
      () => seen.has('MMIO') && seen.has('IO'),
    );
    expect(attempts).toBeGreaterThan(10);
    expect([...seen]).toEqual(expect.arrayContaining(['MMIO', 'IO']));
  });

  it('gives a coalesced ring neither an end that is none, nor none', async () => {
    const buffer = new SharedArrayBuffer(4096);
    const ring = new CoalescedMmioRing(buffer, arch);
    let taken = 0;
    const { attempts } = await whileFlipping(
      buffer,
      [
        [0, 4, [0, 1, 169, 170, 0x0100_0000, 0xffff_ffff]],
        [4, 4],
        [4, 4, [0, 5, 100, 0x0500_0000]],
        [16, 8],
      ],
      () => {
        let now = 0;
        ring.drain(({ data }) => {
          now++;
          expect(data.length).toBeLessThanOrEqual(8);
        });
        expect(now).toBeLessThanOrEqual(170);
        taken += now;
      },
      () => taken > 0,
    );
    expect(attempts).toBeGreaterThan(10);
    expect(taken).toBeGreaterThan(0);
  });

  it('makes a harvest of a dirty ring no longer than the ring', async () => {
    const buffer = new SharedArrayBuffer(4096);
    const ring = new DirtyRing(buffer, arch);
    const places: Places = Array.from(
      { length: 256 },
      (_, i) =>
        [
          [16 * i, 4, [1, 2, 0x0100_0000, 0]],
          [16 * i + 8, 8],
        ] as const,
    ).flat();
    let harvested = 0;
    const { attempts } = await whileFlipping(
      buffer,
      places,
      () => {
        let now = 0;
        const count = ring.harvest(() => now++);
        expect(count).toBe(now);
        expect(count).toBeLessThanOrEqual(256);
        expect(ring.next).toBeLessThan(256);
        harvested += count;
      },
      () => harvested > 0,
    );
    expect(attempts).toBeGreaterThan(10);
    expect(harvested).toBeGreaterThan(0);
  });
});
