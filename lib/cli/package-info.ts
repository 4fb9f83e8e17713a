import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** The version in this package's package.json. */
export function packageVersion(): string {
  const path = createRequire(import.meta.url).resolve('kvm-bridge/package.json');
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
}
