import { copies, randomReads, scatterReads } from './accesses.ts';
import type { Benchmark } from './benchmark.ts';
import { bindingCopies, bindingReads } from './bindings.ts';
import { dirtyBitmaps } from './dirty-bitmaps.ts';
import { doorbells } from './doorbell.ts';
import { mmioExits } from './exits.ts';
import { importTime, slotMemory } from './footprint.ts';
import { growth } from './growth.ts';
import { hptEnter, hptTranslations, hptWrites, htabLaterPasses, htabStreams } from './hpt.ts';
import { checkExtension, getDirtyLog, setUserMemoryRegion } from './ioctls.ts';
import { backEndsUnderQemu } from './qemu-load.ts';
import { s390xKeys, s390xReads } from './s390x.ts';
import { vhostUserReads } from './vhost-user.ts';

export const BENCHMARKS: readonly Benchmark[] = [
  checkExtension,
  setUserMemoryRegion,
  getDirtyLog,
  randomReads,
  scatterReads,
  copies,
  bindingReads,
  bindingCopies,
  dirtyBitmaps,
  htabStreams,
  htabLaterPasses,
  hptEnter,
  hptTranslations,
  hptWrites,
  s390xReads,
  s390xKeys,
  mmioExits,
  importTime,
  slotMemory,
  doorbells,
  vhostUserReads,
  backEndsUnderQemu,
  growth,
];
