import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { cli } from '../../../../lib/cli/cli.ts';
import { fakeIo } from '../fake-io.ts';

/** A folder for the files of one test file. */
export function scratch(): { readonly folder: string; file(name: string, bytes: Uint8Array): string } {
  const folder = mkdtempSync(join(tmpdir(), 'hpt-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return {
    folder,
    file: (name, bytes) => {
      const path = join(folder, name);
      writeFileSync(path, bytes);
      return path;
    },
  };
}

/** `kvm-bridge hpt …`, and what it said. */
export async function run(...argv: string[]): Promise<{ status: number; out: string; err: string }> {
  const io = fakeIo();
  const status = await cli(['hpt', ...argv], io);
  return { status, out: io.out(), err: io.err() };
}
