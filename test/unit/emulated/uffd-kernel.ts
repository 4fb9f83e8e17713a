import { beforeEach, expect } from 'vitest';
import { EmulatedKernel, MAP, PROT } from '../../../lib/raw.ts';

export const PAGE = 4096;
export const HUGE = 0x20_0000;
export const RW = PROT.READ | PROT.WRITE;

/** What the test that runs has, and a userfaultfd of it. */
export let kernel: EmulatedKernel;
export let uffd: NonNullable<EmulatedKernel['uffd']>;
export let fd: number;

/** A userfaultfd whose API was agreed on. */
export function open(): number {
  const opened = uffd.userfaultfd(0);
  expect(uffd.uffdApi(opened, BigUint64Array.of(0n, 0n))).toBe(0);
  return opened;
}

export const map = (length: number, flags = 0): number =>
  kernel.mmap(length, RW, MAP.PRIVATE | MAP.ANONYMOUS | flags, -1, 0, 0, 0);

/** Goes on with another kernel. */
export function useKernel(options: ConstructorParameters<typeof EmulatedKernel>[0]): void {
  kernel = new EmulatedKernel(options);
  uffd = kernel.uffd!;
  fd = open();
}

/** A kernel for each test of a file. */
export function makeKernels(): void {
  beforeEach(() => useKernel({ arch: 'x86_64' }));
}
