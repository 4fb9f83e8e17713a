import { bitmapLoops } from '../backends/native.ts';
import type { U64 } from '../base/u64.ts';
import type { BitmapLoops } from '../memory/bitmap-loops.ts';
import type { DirtyPages, DirtyTracking } from '../memory/dirty-pages.ts';
import type { DirtyRing } from '../memory/dirty-ring.ts';
import { DIRTY_RING_RULES } from '../rules/dirty-ring.ts';
import { explain } from '../rules/rule.ts';
import { CAP } from '../uapi/capabilities.ts';
import { ERRNO } from '../uapi/errno.ts';

/** The VM whose kernel tracks. */
export interface TrackedVm {
  readonly calls: { readonly pageSize: number };
  readonly vcpus: readonly { readonly dirtyRing: DirtyRing | undefined; readonly running: boolean }[];
  checkExtension(cap: number): number;
}

/** The kernel's side of dirty tracking, as a VM has set it up with capabilities. */
export class VmDirtyTracking implements DirtyTracking {
  readonly collectors = new Map<number, DirtyPages>();
  #manualProtect = 0;
  #ringBytes = 0;
  #ringWithBitmap = false;
  readonly #vm: TrackedVm;

  constructor(vm: TrackedVm) {
    this.#vm = vm;
  }

  get bitmapLoops(): BitmapLoops {
    return bitmapLoops();
  }

  get manualProtect(): number {
    return this.#manualProtect;
  }

  get ringBytes(): number {
    return this.#ringBytes;
  }

  get ringWithBitmap(): boolean {
    return this.#ringWithBitmap;
  }

  get running(): boolean {
    return this.#vm.vcpus.some(({ running }) => running);
  }

  *rings(): Generator<DirtyRing> {
    for (const { dirtyRing } of this.#vm.vcpus) if (dirtyRing !== undefined) yield dirtyRing;
  }

  /** Empties the vCPUs' rings for those who collect; false when nobody does. */
  harvest(): boolean {
    const [collector] = this.collectors.values();
    return collector !== undefined && collector.harvest() > 0;
  }

  /** A capability was enabled on the VM. */
  enabled(cap: number, arg: U64): void {
    switch (cap) {
      case CAP.MANUAL_DIRTY_LOG_PROTECT2:
        this.#manualProtect = Number(arg);
        break;
      case CAP.DIRTY_LOG_RING:
      case CAP.DIRTY_LOG_RING_ACQ_REL:
        this.#ringBytes = ringBytes(arg);
        break;
      case CAP.DIRTY_LOG_RING_WITH_BITMAP:
        this.#ringWithBitmap = true;
        break;
    }
  }

  /** Why the kernel refused a ring of so many bytes; undefined for other capabilities. */
  explain(cap: number, bytes: U64, errno: number): string | undefined {
    if ((cap !== CAP.DIRTY_LOG_RING && cap !== CAP.DIRTY_LOG_RING_ACQ_REL) || errno === -ERRNO.EBADF) return undefined;
    const context = {
      bytes: BigInt(ringBytes(bytes)),
      pageSize: this.#vm.calls.pageSize,
      maxBytes: this.#vm.checkExtension(cap),
      enabled: this.#ringBytes,
      vcpus: this.#vm.vcpus.length,
    };
    return explain(DIRTY_RING_RULES, context, errno);
  }
}

/** As the kernel takes a ring's size, whose parameter is a u32. */
const ringBytes = (arg: U64): number => Number(BigInt.asUintN(32, BigInt(arg)));
