import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { addon } from './real.ts';

const path =
  process.env.KVM_BRIDGE_ADDON || fileURLToPath(new URL('../../../build/Release/kvm_bridge.node', import.meta.url));

it('the addon imports no operator new that throws, and nothing else that does for want of memory', (test) => {
  addon(test);
  const { status, stdout, error } = spawnSync('nm', ['-D', '--undefined-only', path], { encoding: 'utf8' });
  if (status !== 0) return test.skip(`nm is needed to look at the addon: ${error?.message ?? status}`);
  const imported = stdout.split('\n').map((line) => line.trim().split(/\s+/).at(-1)?.replace(/@.*/, '') ?? '');
  const news = imported.filter((name) => /^_Zn[wa]/.test(name));
  expect(news.length).toBeGreaterThan(0);
  expect(news.filter((name) => !name.endsWith('RKSt9nothrow_t'))).toEqual([]);
  // A mutex says by an exception that it is no mutex. That is not for want of memory, and ours are.
  const throwing = imported.filter((name) => /__throw_|cxa_throw|cxa_allocate/.test(name) && !name.startsWith('napi_'));
  expect(throwing.filter((name) => name !== '_ZSt20__throw_system_errori')).toEqual([]);
  return undefined;
});
