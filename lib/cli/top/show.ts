import { setTimeout as sleep } from 'node:timers/promises';
import type { OutputStream } from '../io.ts';
import type { Meter } from './meter.ts';

const SECOND = 1000;

/**
 * Shows what a meter sees once a second until it is stopped: on a terminal over what was there before, else one after the other.
 * It keeps no process alive.
 */
export async function watch(meter: Meter, stream: OutputStream, signal: AbortSignal): Promise<void> {
  let lines = 0;
  for (;;) {
    await sleep(SECOND, undefined, { signal, ref: false }).catch(() => {});
    if (signal.aborted) return;
    const text = `${meter.look()}\n\n`;
    stream.write(`${lines === 0 ? '' : `\x1b[${lines}A\x1b[J`}${text}`);
    if (stream.isTTY === true) lines = text.split('\n').length - 1;
  }
}
