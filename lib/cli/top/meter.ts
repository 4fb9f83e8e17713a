import { isClosed } from '../../calls/failure.ts';
import type { Kvm } from '../../handles/kvm.ts';
import type { Vm } from '../../handles/vm.ts';
import { MemoryRegion } from '../../memory/region.ts';
import { DirtyMeter } from './dirty-meter.ts';
import type { ExitCounts } from './exit-counts.ts';
import type { DirtyLook, Look, RegionLook } from './look.ts';

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

  /** What happened since the last look. */
  look(): Look {
    const now = performance.now();
    const seconds = Math.max((now - this.#since) / 1000, 0.001);
    this.#since = now;
    const { vm, exits } = this.#measured;
    const vcpus = vm.closed ? [] : vm.vcpus;
    const counts = [...exits.take()].sort((a, b) => b[1] - a[1]);
    return {
      seconds,
      vcpus: vcpus.length,
      running: vcpus.filter((vcpu) => vcpu.running).length,
      exits: counts.map(([reason, count]) => ({ reason, count })),
      dirty: this.#dirty(),
    };
  }

  [Symbol.dispose](): void {
    this.#dirtyPages[Symbol.dispose]();
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

  #dirty(): DirtyLook {
    const { vm, kvm } = this.#measured;
    if (vm.closed) return { whyNot: isClosed('the VM') };
    const looked = this.#looksAtDirty;
    const runs = looked ? this.#dirtyPages.take() : [];
    // Whoever collected may have stopped by now.
    this.#start();
    if (this.#whyNot !== '') return { whyNot: this.#whyNot };
    if (!looked) {
      const whyNot = this.#looksAtDirty ? 'dirty pages are looked at from now on' : 'there is no memory that has a log';
      return { whyNot };
    }
    const { pageSize } = kvm;
    const regions = [...vm.memory.regions()].flatMap((region): RegionLook[] => {
      if (!(region instanceof MemoryRegion)) return [];
      const { start, size, name } = region;
      const [first, end] = [start / pageSize, region.end / pageSize];
      const dirtyPages = runs.reduce(
        (sum, { gfn, npages }) => sum + Math.max(0, Math.min(gfn + npages, end) - Math.max(gfn, first)),
        0,
      );
      return [{ gpa: start, size, name, dirtyPages }];
    });
    return { collectedByScript: this.#dirtyPages.isOthers, pageSize, regions };
  }
}
