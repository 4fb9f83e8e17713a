import { hex, hexRange } from '../../base/errors.ts';
import { gfnOf, isPlaced, type MemslotContext } from '../../rules/memslot.ts';
import type { Rule } from '../../rules/rule.ts';

/** The architecture's check of a memslot: the last gfn must be within the MMU's reach. */
export function x86_64MemslotRules(maxGfn: number): readonly Rule<MemslotContext>[] {
  return [
    {
      errno: 'EINVAL',
      broken: (context) => {
        const { request, limits } = context;
        return isPlaced(context) && gfnOf(request.gpa, limits) + gfnOf(request.size, limits) - 1 > maxGfn;
      },
      why: ({ request, limits }) =>
        `${hexRange(request.gpa, request.size)} reaches beyond the highest guest physical address, ${hex(BigInt(maxGfn + 1) * BigInt(limits.pageSize) - 1n)}`,
    },
  ];
}
