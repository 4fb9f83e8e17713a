import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { TestContext } from 'vitest';
import { type KvmCalls, loadNative } from '../../../lib/raw.ts';

const loaded = loadNative();

/** The addon's calls, or the test is skipped with the reason. */
export function hostCalls(test: TestContext): KvmCalls {
  return 'calls' in loaded ? loaded.calls : test.skip(loaded.reason);
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Their number once it is no more than before, or after two seconds: the test runner opens files of its own for a moment. */
export async function remainingDescriptors(before: number): Promise<number> {
  for (let i = 0; i < 40 && openDescriptors() > before; i++) await delay(50);
  return openDescriptors();
}
