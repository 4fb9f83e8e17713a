import { hex } from '../../base/errors.ts';
import { humanSize, table } from '../../base/text.ts';
import { isClosed } from '../../calls/failure.ts';
import type { Kvm } from '../../handles/kvm.ts';
import type { Vm } from '../../handles/vm.ts';
import { MemoryRegion } from '../../memory/region.ts';
import { DirtyMeter } from './dirty-meter.ts';
import type { ExitCounts } from './exit-counts.ts';

/** What is measured: a session's VM. */
export interface Measured {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly exits: ExitCounts;
}

/** What a guest does, from one look to the next: exits by reason, and pages that became dirty by region. */
export class Meter {
  readonly #measured: Measured;
  readonly #dirtyPages: DirtyMeter;
  #looksAtDirty = false;
  /** Why nobody can. */
  #whyNot = '';
  #since = performance.now();

  constructor(measured: Measured) {
    this.#measured = measured;
    measured.exits.take();
    this.#dirtyPages = new DirtyMeter(measured.vm);
    this.#start();
  }

  /** What happened since the last look, as a text. */
  look(): string {
    const now = performance.now();
    const seconds = Math.max((now - this.#since) / 1000, 0.001);
    this.#since = now;
    return [this.#exits(seconds), '', this.#dirty(seconds)].join('\n');
  }

  [Symbol.dispose](): void {
    this.#dirtyPages[Symbol.dispose]();
  }

  #exits(seconds: number): string {
    const counts = [...this.#measured.exits.take()].sort((a, b) => b[1] - a[1]);
    const { vm } = this.#measured;
    const running = vm.closed ? 0 : vm.vcpus.filter((vcpu) => vcpu.running).length;
    const total = counts.reduce((sum, [, count]) => sum + count, 0);
    const head = `${running} of ${vm.closed ? 0 : vm.vcpus.length} vCPUs in their guest, ${rate(total, seconds)} exits a second`;
    const rows = counts.map(([reason, count]) => [reason, rate(count, seconds), `${count}`]);
    return rows.length === 0 ? head : `${head}\n${table(['exit', 'a second', 'count'], rows)}`;
  }

  #start(): void {
    this.#whyNot = '';
    try {
      this.#looksAtDirty = this.#dirtyPages.start();
    } catch (error) {
      this.#looksAtDirty = false;
      this.#whyNot = `dirty pages can't be looked at: ${(error as Error).message}`;
    }
  }

  #dirty(seconds: number): string {
    const { vm, kvm } = this.#measured;
    if (vm.closed) return isClosed('the VM');
    const looked = this.#looksAtDirty;
    const runs = looked ? this.#dirtyPages.take() : [];
    // Whoever collected may have stopped by now.
    this.#start();
    if (this.#whyNot !== '') return this.#whyNot;
    if (!looked)
      return this.#looksAtDirty ? 'dirty pages are looked at from now on' : 'there is no memory that has a log';
    const rows = [...vm.memory.regions()].flatMap((region) => {
      if (!(region instanceof MemoryRegion)) return [];
      const [first, end] = [region.start / kvm.pageSize, region.end / kvm.pageSize];
      const pages = runs.reduce(
        (sum, { gfn, npages }) => sum + Math.max(0, Math.min(gfn + npages, end) - Math.max(gfn, first)),
        0,
      );
      const share = region.size === 0 ? 0 : (100 * pages * kvm.pageSize) / region.size;
      return [
        [
          region.name ?? hex(region.start),
          rate(pages, seconds),
          `${humanSize(Math.round((pages * kvm.pageSize) / seconds))}/s`,
          `${share.toFixed(share < 10 ? 2 : 0)}%`,
        ],
      ];
    });
    const head = this.#dirtyPages.isOthers
      ? 'dirty pages as the script collects them, which is when they are counted\n'
      : '';
    return `${head}${table(['region', 'dirty pages a second', '', 'of it'], rows)}`;
  }
}

const rate = (count: number, seconds: number): string => {
  const value = count / seconds;
  return value.toFixed(value > 0 && value < 10 ? 1 : 0);
};
