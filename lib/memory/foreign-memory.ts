import { callError } from '../calls/failure.ts';
import type { KvmCalls } from '../calls/kvm-calls.ts';
import { shareMemory } from '../calls/wrapped.ts';
import { ERRNO } from '../uapi/errno.ts';
import { MAP, PROT } from '../uapi/flags.ts';
import type { Mapping } from './mapping.ts';

/**
 * Memory of the process as a VM's kernel sees it. For the real kernel that is simply its address; an emulated kernel maps the
 * memfds of the real one once more, in its own addresses.
 */
export class ForeignMemory {
  readonly #calls: KvmCalls;
  readonly #shown = new Map<Mapping, number>();

  constructor(calls: KvmCalls) {
    this.#calls = calls;
  }

  /** The address at which the kernel finds the mapping. @throws KvmError EXDEV when it can't */
  hvaOf(mapping: Mapping): number {
    if (shareMemory(mapping.calls, this.#calls)) return mapping.hva;
    const shown = this.#shown.get(mapping) ?? this.#show(mapping);
    this.#shown.set(mapping, shown);
    return shown;
  }

  /** Gives up what no slot shows any more. */
  hideUnless(isUsed: (mapping: Mapping) => boolean): void {
    for (const [mapping, hva] of this.#shown) {
      if (isUsed(mapping)) continue;
      this.#shown.delete(mapping);
      this.#calls.munmap(hva, mapping.size);
    }
  }

  #show(mapping: Mapping): number {
    const { size, fd } = mapping;
    const explanation = whyNot(mapping, this.#calls);
    if (explanation !== undefined) throw callError('mmap', ERRNO.EXDEV, { size, explanation });
    const prot = PROT.READ | PROT.WRITE;
    const hva = this.#calls.mmap(size, prot, MAP.SHARED, fd, 0, ALIGNMENT, 0);
    if (hva < 0) throw callError('mmap', hva, { size });
    return hva;
  }
}

function whyNot({ kind, fd, calls }: Mapping, { backend }: KvmCalls): string | undefined {
  if (backend === 'native')
    return 'the real kernel cannot use memory of an emulated one: make it with the calls of the addon';
  if (calls.backend === 'emulated')
    return "an emulated kernel cannot use another's memory: make it with the same calls, or as a memfd with the addon's";
  return fd < 0
    ? `an emulated kernel can use the real kernel's memory only if it is a memfd, and this is ${kind}`
    : undefined;
}

/** What every kernel wants of a slot's address. */
const ALIGNMENT = 0x10_0000;
