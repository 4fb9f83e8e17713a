import { setTimeout as sleep } from 'node:timers/promises';
import { lookAsText } from '../top/look.ts';
import { Meter } from '../top/meter.ts';
import { textTo, watch } from '../top/show.ts';
import { type DotCommand, DotUsageError } from './dot-command.ts';

const MOST_SECONDS = 3600;

export const top: DotCommand = {
  usage: '[SECONDS]',
  help: 'What running guests do: exits a second by reason, dirty pages by region; till Ctrl-C on a terminal',
  async run(argument, { session, exits, screen, interrupted }) {
    const seconds = Number(argument || (screen === undefined ? 1 : MOST_SECONDS));
    if (!(seconds > 0 && seconds <= MOST_SECONDS)) {
      throw new DotUsageError(`the seconds are a number up to ${MOST_SECONDS}, not ${argument}`);
    }
    using meter = new Meter({ ...session, exits });
    const signal = AbortSignal.any([interrupted(), AbortSignal.timeout(seconds * 1000)]);
    if (screen !== undefined && seconds > 1) await watch(meter, textTo(screen), signal);
    else await sleep(seconds * 1000, undefined, { signal }).catch(() => {});
    return lookAsText(meter.look());
  },
};
