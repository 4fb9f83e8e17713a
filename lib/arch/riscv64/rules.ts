import { hex, hexRange } from '../../base/errors.ts';
import { gfnOf, type MemslotContext, memslotChange } from '../../rules/memslot.ts';
import type { Rule } from '../../rules/rule.ts';
import { MEM } from '../../uapi/flags.ts';

const isLooked = (context: MemslotContext): boolean => !['delete', 'none'].includes(memslotChange(context));

/**
 * The architecture's checks of a memslot (`kvm_arch_prepare_memory_region`), also when only its flags change.
 *
 * @param gpaBits bits of a guest physical address, of which the very last page is not to be had
 */
export function riscv64MemslotRules(gpaBits: number): readonly Rule<MemslotContext>[] {
  const limit = 2 ** (gpaBits - 12);
  return [
    {
      errno: 'EFAULT',
      broken: (context) => {
        const { request, limits } = context;
        return isLooked(context) && gfnOf(request.gpa, limits) + gfnOf(request.size, limits) >= limit;
      },
      why: ({ request }) =>
        `${hexRange(request.gpa, request.size)} does not end below ${hex(1n << BigInt(gpaBits))}, where guest physical addresses end`,
    },
    {
      errno: 'EPERM',
      // Whoever cannot tell what is mapped there asks after the kernel has refused.
      broken: (context) =>
        isLooked(context) &&
        (context.request.flags & MEM.READONLY) === 0 &&
        (context.hasUnwritable?.(context.request.hva, context.request.size) ?? true),
      why: ({ request }) =>
        `${hexRange(request.hva, request.size)} has memory of the process that it may not write: make the slot READONLY, or the mapping writable first`,
    },
  ];
}
