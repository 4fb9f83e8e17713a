import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { loadNative, prebuiltPlatform } from '../../../lib/backends/native.ts';
import { checked } from '../../../lib/calls/checked.ts';
import { GROUP_SIGNATURES, SIGNATURES } from '../../../lib/calls/signatures.ts';
import { addon } from '../native/real.ts';

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('loadNative', () => {
  it('says which path it tried, and what mends it', () => {
    vi.stubEnv('KVM_BRIDGE_ADDON', '/nowhere/kvm_bridge.node');
    const loaded = loadNative();
    expect(loaded).toMatchObject({ tried: ['/nowhere/kvm_bridge.node'] });
    expect(loaded).toHaveProperty('reason', expect.stringMatching(/KVM_BRIDGE_ADDON names \/nowhere.*no such file/));
    expect(loaded).toHaveProperty('error', expect.any(Error));
  });

  it('tells a broken addon from a missing one', () => {
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
    const path = join(folder, 'broken.node');
    writeFileSync(path, 'this is no shared object');
    vi.stubEnv('KVM_BRIDGE_ADDON', path);
    const loaded = loadNative();
    rmSync(folder, { recursive: true });
    expect(loaded).toHaveProperty('reason', expect.stringMatching(/is there, but Node v\d+.* cannot load it/));
  });

  it('takes the prebuilt addon of the C library that its Node is linked with', (test) => {
    if (process.platform !== 'linux') test.skip('this is no Linux');
    const here = `${process.platform}-${process.arch}`;
    const { glibcVersionRuntime } = (
      process.report.getReport() as { readonly header: { readonly glibcVersionRuntime?: string } }
    ).header;
    expect(prebuiltPlatform()).toBe(glibcVersionRuntime === undefined ? `${here}-musl` : here);
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-'));
    const alpine = join(folder, 'node');
    writeFileSync(alpine, '\x7fELF … /lib/ld-musl-x86_64.so.1 …');
    expect(prebuiltPlatform(alpine)).toBe(`${here}-musl`);
    rmSync(folder, { recursive: true });
  });

  it('gives all of KvmCalls, and the group of this architecture alone', (test) => {
    const calls = addon(test);
    for (const name of Object.keys(SIGNATURES)) expect(calls).toHaveProperty(name, expect.any(Function));
    for (const group of ['x86_64', 's390x', 'ppc64'] as const) {
      if (group === calls.arch) {
        expect(Object.keys(calls[group] ?? {}).sort()).toEqual(Object.keys(GROUP_SIGNATURES[group]).sort());
      } else {
        expect(calls[group]).toBe(undefined);
      }
    }
    expect(Object.keys(calls.sharing ?? {}).sort()).toEqual(Object.keys(GROUP_SIGNATURES.sharing).sort());
    expect(checked(calls).backend).toBe('native');
  });
});
