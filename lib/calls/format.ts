import { createHash } from 'node:crypto';

/** Bytes shown in full; longer data that doesn't compress is shown by its beginning and a digest. */
const MAX_TOKENS = 48;
/** Equal bytes in a row that are worth writing as `00*64`. */
const MIN_RUN = 4;

/** Bytes as text: hexadecimal, runs of one byte as `00*64`; nothing that matters is left out (a digest stands for the rest). */
export function formatBytes(bytes: Uint8Array): string {
  const tokens: string[] = [];
  let plain = '';
  const flush = (): void => {
    if (plain !== '') tokens.push(plain);
    plain = '';
  };
  for (let i = 0; i < bytes.length; ) {
    const byte = bytes[i]!;
    let end = i + 1;
    while (end < bytes.length && bytes[end] === byte) end++;
    const text = byte.toString(16).padStart(2, '0');
    if (end - i >= MIN_RUN) {
      flush();
      tokens.push(`${text}*${end - i}`);
    } else {
      plain += text.repeat(end - i);
      if (plain.length >= 32) flush();
    }
    i = end;
    if (tokens.length > MAX_TOKENS) {
      const digest = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
      return `[${tokens.slice(0, MAX_TOKENS).join(' ')} ... ${bytes.length} bytes, sha256 ${digest}]`;
    }
  }
  flush();
  return `[${tokens.join(' ')}]`;
}
