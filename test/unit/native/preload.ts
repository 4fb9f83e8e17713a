import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';
import { type ChildResult, childPath, runNode } from './real.ts';

let library: string | undefined;
let why = '';

function build(): string | undefined {
  const source = fileURLToPath(new URL('preload/preload.c', import.meta.url));
  const built = join(mkdtempSync(join(tmpdir(), 'kvm-bridge-')), 'preload.so');
  const { status, stderr, error } = spawnSync(
    'cc',
    ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-o', built, source, '-ldl', '-lpthread'],
    { encoding: 'utf8' },
  );
  if (status === 0) return built;
  why = error?.message ?? stderr;
  return undefined;
}

/** Runs one of `children/` with calls that it may let fail, and with a KVM that needs no hardware. */
export function runPreloaded(
  test: TestContext,
  name: string,
  { args = [], env = {} }: { args?: readonly string[]; env?: NodeJS.ProcessEnv } = {},
): ChildResult {
  if (process.env.LD_PRELOAD) return test.skip(`another library must be loaded first: ${process.env.LD_PRELOAD}`);
  library ??= build();
  if (library === undefined) return test.skip(`the fake KVM cannot be compiled: ${why}`);
  return runNode(['--expose-gc', childPath(name), ...args], library, { FAKE_KVM: '1', ...env });
}
