/** A thread of the interlock test: one remaps sixteen pages over and over, the others read them through their tables. */

import { parentPort, workerData } from 'node:worker_threads';
import { type IpteLock, SiifIpteLock, SimpleIpteLock } from '../../../../../lib/arch/s390x/emulated/ipte-lock.ts';
import {
  cpuState,
  DatTranslation,
  memoryOfBytes,
  selectAsce,
  translateFragment,
} from '../../../../../lib/arch/s390x/model/index.ts';

export interface IpteWork {
  readonly role: 'reader' | 'remapper';
  readonly form: 'siif' | 'simple' | 'none';
  readonly lock: SharedArrayBuffer;
  readonly storage: SharedArrayBuffer;
  /** One word: not zero ends the thread. */
  readonly stop: SharedArrayBuffer;
}

export interface IpteOutcome {
  readonly role: IpteWork['role'];
  readonly rounds: number;
  /** Reads that saw more than one mapping, or none. */
  readonly mixed: number;
}

const PAGES = 16;
const SEGMENTS = 0x1000;
const PAGE_TABLE = 0x2000;
/** Two sets of frames, used in turn. */
const FRAMES = [0x1_0000, 0x2_0000] as const;

const work = workerData as IpteWork;
const bytes = new Uint8Array(work.storage);
const view = new DataView(work.storage);
const stop = new Int32Array(work.stop);
const lock = makeLock();

function makeLock(): IpteLock | undefined {
  if (work.form === 'none') return undefined;
  return work.form === 'siif' ? new SiifIpteLock(work.lock) : new SimpleIpteLock(work.lock);
}

function remap(): IpteOutcome {
  let rounds = 0;
  while (Atomics.load(stop, 0) === 0) {
    if (lock?.tryInvalidate() === false) continue;
    const generation = (rounds % 255) + 1;
    const frames = FRAMES[rounds % 2]!;
    for (let page = 0; page < PAGES; page++) view.setBigUint64(PAGE_TABLE + 8 * page, 0x400n);
    for (let page = 0; page < PAGES; page++) {
      bytes.fill(generation, frames + page * 4096, frames + (page + 1) * 4096);
      view.setBigUint64(PAGE_TABLE + 8 * page, BigInt(frames + page * 4096));
    }
    lock?.invalidated();
    rounds++;
  }
  return { role: 'remapper', rounds, mixed: 0 };
}

function read(): IpteOutcome {
  const memory = memoryOfBytes(bytes);
  const cpu = cpuState({ cr: { 1: SEGMENTS } });
  const translation = new DatTranslation();
  const data = new Uint8Array(PAGES * 4096);
  let rounds = 0;
  let mixed = 0;
  while (Atomics.load(stop, 0) === 0) {
    lock?.lock();
    let code = selectAsce(cpu, memory, 'fetch', 0, translation);
    for (let page = 0; page < PAGES && code === 0; page++) {
      code = translateFragment(cpu, memory, 0, page * 4096, 'fetch', translation);
      if (code === 0) data.set(bytes.subarray(translation.pfn * 4096, translation.pfn * 4096 + 4096), page * 4096);
    }
    lock?.unlock();
    rounds++;
    if (code !== 0 || data.some((byte) => byte !== data[0])) mixed++;
  }
  return { role: 'reader', rounds, mixed };
}

parentPort!.postMessage(work.role === 'remapper' ? remap() : read());
