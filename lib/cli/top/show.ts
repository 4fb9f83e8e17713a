import { setTimeout as sleep } from 'node:timers/promises';
import type { OutputStream } from '../io.ts';
import { type Look, lookAsText } from './look.ts';
import type { Meter } from './meter.ts';

const SECOND = 1000;

/** Gives what a meter sees to somebody once a second, until it is stopped. It keeps no process alive. */
export async function watch(meter: Meter, show: (look: Look) => void, signal: AbortSignal): Promise<void> {
  for (;;) {
    await sleep(SECOND, undefined, { signal, ref: false }).catch(() => {});
    if (signal.aborted) return;
    show(meter.look());
  }
}

/** Shows looks as text: on a terminal over what was there before, else one after the other. */
export function textTo(stream: OutputStream): (look: Look) => void {
  let lines = 0;
  return (look) => {
    const text = `${lookAsText(look)}\n\n`;
    stream.write(`${lines === 0 ? '' : `\x1b[${lines}A\x1b[J`}${text}`);
    if (stream.isTTY === true) lines = text.split('\n').length - 1;
  };
}
