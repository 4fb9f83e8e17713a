import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { elfNeeds } from './elf-needs.ts';
import { ROOT, run } from './packed-package.ts';

/** ELF machine numbers; the base names of the dynamic linkers. */
const PLATFORMS = [
  ['linux-x64', 62, false],
  ['linux-arm64', 183, false],
  ['linux-s390x', 22, true],
  ['linux-ppc64', 21, false],
  ['linux-riscv64', 243, false],
] as const;

const newer = (version: string): boolean => {
  const [major = 0, minor = 0] = version.replace('GLIBC_', '').split('.').map(Number);
  return major > 2 || (major === 2 && minor > 28);
};

describe.each(PLATFORMS)('the prebuilt addon for %s', { timeout: 120_000 }, (platform, machine, bigEndian) => {
  it('needs glibc 2.28 and nothing that Node lacks', async (test) => {
    const { status, text } = await run(ROOT, process.execPath, ['native/prebuild.mjs', platform]);
    if (/the compilers are not here/.test(text)) test.skip(text.trim());
    expect(status, text).toBe(0);
    const needs = elfNeeds(readFileSync(join(ROOT, 'prebuilds', platform, 'kvm_bridge.node')));
    expect(needs).toMatchObject({ machine, bigEndian });
    expect(needs.versions.filter((version) => !version.startsWith('GLIBC_'))).toEqual([]);
    expect(needs.versions.length).toBeGreaterThan(1);
    expect(needs.versions.filter(newer)).toEqual([]);
    expect(needs.libraries.filter((name) => !/^(libc|libpthread|librt|ld-.*|ld64)\.so\.\d$/.test(name))).toEqual([]);
    expect([...needs.exports].sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });
});

describe('prebuild.mjs', () => {
  it('names what it does not know, and what there is', async () => {
    const { status, text } = await run(ROOT, process.execPath, ['native/prebuild.mjs', 'linux-mips']);
    expect(status).toBe(1);
    expect(text).toContain(
      'there is no platform linux-mips; there are linux-x64, linux-arm64, linux-s390x, linux-ppc64, linux-riscv64',
    );
  });
});
