import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** Pages whose code needs a peer, or the real kernel: peers.test.ts has them. */
export const WITH_PEERS = /^docs\/(labs|vhost-user)\.md/;

/** A piece of code in README or in docs. */
export interface Block {
  /** `docs/s390x.md:8`. */
  readonly name: string;
  readonly language: 'ts' | 'js';
  readonly code: string;
}

/** All pieces of TypeScript and JavaScript in README and docs. */
export function codeBlocks(): readonly Block[] {
  const docs = readdirSync(`${ROOT}/docs`).filter((file) => file.endsWith('.md'));
  return ['README.md', ...docs.map((file) => `docs/${file}`)].flatMap((file) => {
    const text = readFileSync(`${ROOT}/${file}`, 'utf8');
    return [...text.matchAll(/^```(ts|js)\n(.*?)^```$/gms)].map((match) => ({
      name: `${file}:${text.slice(0, match.index).split('\n').length}`,
      language: match[1] as Block['language'],
      code: match[2]!,
    }));
  });
}
