import { setImmediate as turn } from 'node:timers/promises';
import { hex } from '../../base/errors.ts';
import { counted, humanSize } from '../../base/text.ts';
import { MemoryRegion } from '../../memory/region.ts';
import { Progress, percent } from '../progress.ts';
import { type DotCommand, DotUsageError, numberOf, type Prompt, wordsOf } from './dot-command.ts';

/** `"text"`, `0xcafe/4`, or bytes in hexadecimal such as `de ad be ef`. */
export function bytesOf(words: readonly string[], littleEndian: boolean, prompt: Prompt): Uint8Array {
  const text = words.join(' ');
  const quoted = /^(["'])(.*)\1$/.exec(text);
  if (quoted !== null) return Buffer.from(quoted[2]!, 'utf8');
  const sized = /^(.*)\/([1248])$/.exec(text);
  if (sized !== null) {
    const size = Number(sized[2]);
    const value = numberOf(sized[1]!, 'the value', prompt);
    if (value >= 1n << BigInt(8 * size))
      throw new DotUsageError(`${hex(value)} does not fit into ${counted(size, 'byte')}`);
    const bytes = Buffer.from(value.toString(16).padStart(2 * size, '0'), 'hex');
    return littleEndian ? bytes.reverse() : bytes;
  }
  const digits = text.replaceAll(/\s|0x/g, '');
  if (digits === '' || digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) {
    throw new DotUsageError(
      `what is written is bytes (de ad), a number with a size (0xcafe/4) or "text", not ${text || 'nothing'}`,
    );
  }
  return Buffer.from(digits, 'hex');
}

const MOST_FOUND = 32;
const WINDOW = 1 << 20;

export const find: DotCommand = {
  usage: 'BYTES|NUMBER/SIZE|"TEXT"',
  help: 'Where something is in the guest\'s RAM: .find "Linux version"',
  async run(argument, prompt) {
    const { memory } = prompt.session.vm;
    const wanted = bytesOf(wordsOf(argument), memory.littleEndian, prompt);
    if (wanted.length === 0) throw new DotUsageError('what is looked for has no bytes');
    const regions = [...memory.regions()].filter((region) => region instanceof MemoryRegion);
    const all = regions.reduce((sum, { size }) => sum + size, 0);
    using progress = prompt.screen && new Progress(prompt.screen);
    const interrupted = prompt.interrupted();
    const found: string[] = [];
    let done = 0;
    for (const region of regions) {
      const window = new Uint8Array(WINDOW + wanted.length - 1);
      for (let at = region.start; at < region.end && found.length < MOST_FOUND; at += WINDOW) {
        // Ctrl-C is heard, and a guest's exits are.
        await turn();
        if (interrupted.aborted) return [...found, `… stopped at ${hex(at)}, after ${humanSize(done)}`].join('\n');
        progress?.show(() => `${humanSize(done)} of ${humanSize(all)}, ${percent(done, all)}`);
        const part = window.subarray(0, Math.min(window.length, region.end - at));
        const bytes = part.subarray(0, memory.read(at, part));
        for (const i of placesIn(bytes, wanted, MOST_FOUND - found.length)) found.push(hex(at + i));
        done += Math.min(WINDOW, region.end - at);
      }
    }
    if (found.length === 0) return 'nowhere';
    return [...found, ...(found.length === MOST_FOUND ? ['… and maybe more'] : [])].join('\n');
  },
};

/** Where something begins in the first MiB of bytes. */
function* placesIn(bytes: Uint8Array, wanted: Uint8Array, most: number): Generator<number, void> {
  const searched = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  let left = most;
  for (let i = searched.indexOf(wanted); i >= 0 && i < WINDOW && left > 0; i = searched.indexOf(wanted, i + 1)) {
    yield i;
    left--;
  }
}
