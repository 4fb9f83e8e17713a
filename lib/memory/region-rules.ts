import { hex, hexRange } from '../base/errors.ts';
import type { Rule } from '../rules/rule.ts';
import type { MmioRegion } from './mmio-bus.ts';
import type { MemoryRegion, Placement } from './region.ts';

/** What the rules of placing a memory region look at. */
export interface RegionContext {
  readonly placement: Placement;
  readonly pageSize: number;
  /** Another region that it overlaps. */
  readonly memory: MemoryRegion | undefined;
  readonly mmio: MmioRegion | undefined;
}

const range = ({ start, size }: Placement): string => hexRange(BigInt(start), size);

/** What no kernel checks: it knows neither mappings nor MMIO handlers, and takes a size of 0 for a deletion. */
export const UNCHECKED_RULES: readonly Rule<RegionContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ placement }) => placement.size === 0,
    why: ({ placement }) => `the region at ${hex(placement.start)} would be empty`,
  },
  {
    errno: 'EINVAL',
    broken: ({ placement: { offset, size, mapping } }) => offset + size > mapping.size,
    why: ({ placement: { offset, size, mapping } }) =>
      `the slice ${hexRange(offset, size)} reaches beyond the mapping, which has ${hex(mapping.size)} bytes`,
  },
  {
    errno: 'EINVAL',
    broken: ({ placement: { guestMemfd, guestMemfdOffset = 0, size } }) =>
      guestMemfd !== undefined && guestMemfdOffset + size > guestMemfd.size,
    why: ({ placement: { guestMemfd, guestMemfdOffset = 0, size } }) =>
      `the slice ${hexRange(guestMemfdOffset, size)} reaches beyond the guest_memfd, which has ${hex(guestMemfd!.size)} bytes`,
  },
  {
    errno: 'EEXIST',
    broken: ({ mmio }) => mmio !== undefined,
    why: ({ placement, mmio }) => `${range(placement)} overlaps ${mmio}`,
  },
];

/** What a kernel checks too, for spaces that no VM is bound to. */
export const PLACEMENT_RULES: readonly Rule<RegionContext>[] = [
  {
    errno: 'EINVAL',
    broken: ({ placement: { start, size, offset }, pageSize }) =>
      start % pageSize !== 0 || size % pageSize !== 0 || offset % pageSize !== 0,
    why: ({ placement: { start, size, offset }, pageSize }) =>
      `gpa ${hex(start)}, size ${hex(size)} and offset ${hex(offset)} must be multiples of the page size, ${hex(pageSize)}`,
  },
  {
    errno: 'EINVAL',
    broken: ({ placement }) => placement.end >= 2 ** 64,
    why: ({ placement }) => `${range(placement)} wraps 64 bits`,
  },
  {
    errno: 'EEXIST',
    broken: ({ memory }) => memory !== undefined,
    why: ({ placement, memory }) => `${range(placement)} overlaps ${memory}`,
  },
];
