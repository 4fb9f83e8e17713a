import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, type TestContext } from 'vitest';
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

/** Of these the package must load with musl. */
const WITH_MUSL = [
  ['linux-x64-musl', 62, '/usr/lib/x86_64-linux-musl/libc.so'],
  ['linux-arm64-musl', 183, '/usr/lib/aarch64-linux-musl/libc.so'],
] as const;

/** What the process that loads an addon has for it. */
const OF_NODE = /^(napi|uv|node_api)_/;

const newer = (version: string): boolean => {
  const [major = 0, minor = 0] = version.replace('GLIBC_', '').split('.').map(Number);
  return major > 2 || (major === 2 && minor > 28);
};

describe.each(PLATFORMS)('the prebuilt addon for %s', { timeout: 120_000 }, (platform, machine, bigEndian) => {
  it('needs glibc 2.28 and nothing that Node lacks', async (test) => {
    const { needs } = await madeFor(test, platform);
    expect(needs).toMatchObject({ machine, bigEndian });
    expect(needs.versions.filter((version) => !version.startsWith('GLIBC_'))).toEqual([]);
    expect(needs.versions.length).toBeGreaterThan(0);
    expect(needs.versions.filter(newer)).toEqual([]);
    expect(needs.libraries.filter((name) => !/^(libc|libpthread|librt|ld-.*|ld64)\.so\.\d$/.test(name))).toEqual([]);
    expect([...needs.exports].sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });
});

async function madeFor(test: TestContext, platform: string) {
  const { status, text } = await run(ROOT, process.execPath, ['native/prebuild.mjs', platform]);
  if (/the compilers are not here/.test(text)) test.skip(text.trim());
  expect(status, text).toBe(0);
  const path = join(ROOT, 'prebuilds', platform, 'kvm_bridge.node');
  return { path, needs: elfNeeds(readFileSync(path)) };
}

describe.each(WITH_MUSL)('the prebuilt addon for %s', { timeout: 120_000 }, (platform, machine, libc) => {
  it('needs what musl has, and what Node has', async (test) => {
    const { needs } = await madeFor(test, platform);
    expect(needs).toMatchObject({ machine, bigEndian: false, versions: [], libraries: [] });
    const theirs = new Set(elfNeeds(readFileSync(libc)).exports);
    expect(theirs.size).toBeGreaterThan(1000);
    expect(needs.undefined.filter((name) => !OF_NODE.test(name) && !theirs.has(name))).toEqual([]);
    expect(needs.undefined.length).toBeGreaterThan(50);
    expect([...needs.exports].sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });
});

describe('the prebuilt addon for linux-x64-musl', { timeout: 120_000 }, () => {
  it('is loaded by a program of musl', async (test) => {
    if (process.arch !== 'x64') test.skip('this is no x64');
    const { path, needs } = await madeFor(test, 'linux-x64-musl');
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-musl-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const source = join(folder, 'host.c');
    const stubs = needs.undefined.filter((name) => OF_NODE.test(name)).map((name) => `void ${name}(void) {}`);
    writeFileSync(
      source,
      `#include <dlfcn.h>
#include <stdio.h>
${stubs.join('\n')}
int main(int count, char** arguments) {
  void* addon = dlopen(arguments[1], RTLD_NOW);
  if (addon == NULL) return puts(dlerror()), 1;
  int (*version)(void) = (int (*)(void))dlsym(addon, "node_api_module_get_api_version_v1");
  return printf("Node-API %d\\n", version()), 0;
}
`,
    );
    const compiled = await run(folder, 'musl-gcc', ['-rdynamic', '-o', 'host', source]).catch(() =>
      test.skip('there is no musl-gcc: sudo apt-get install musl-tools'),
    );
    expect(compiled, compiled.text).toMatchObject({ status: 0 });
    expect(await run(folder, join(folder, 'host'), [path])).toMatchObject({ status: 0, text: 'Node-API 8\n' });
    expect(elfNeeds(readFileSync(join(folder, 'host'))).libraries).toEqual(['libc.so']);
  });
});

describe('prebuild.mjs', () => {
  it('names what it does not know, and what there is', async () => {
    const { status, text } = await run(ROOT, process.execPath, ['native/prebuild.mjs', 'linux-mips']);
    expect(status).toBe(1);
    expect(text).toContain(
      'there is no platform linux-mips; there are linux-x64, linux-x64-musl, linux-arm64, linux-arm64-musl, linux-s390x, linux-ppc64, linux-riscv64',
    );
  });
});
