import { appendFileSync, cpSync, existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PackedPackage, ROOT, run } from './packed-package.ts';

// What a user has after `npm install kvm-bridge`: the packed package in the node_modules of an application.
const find = createRequire(import.meta.url);
const LIMIT = 180_000;
const PLATFORM = `${process.platform}-${process.arch}`;
const MAKES_PREBUILDS = process.platform === 'linux' && ['x64', 'arm64', 's390x', 'ppc64'].includes(process.arch);
const NO_COMPILER = { CXX: '/nonexistent/g++' };

const packed = new PackedPackage();
beforeAll(() => packed.make(MAKES_PREBUILDS ? [PLATFORM] : []), LIMIT);
afterAll(() => packed.remove());

const PATH_OF_ADDON = `import { loadNative } from 'kvm-bridge/raw';
  const loaded = loadNative(); console.log(loaded.path ?? loaded.reason);`;
const addonPath = async () => (await packed.node(['--input-type=module', '-e', PATH_OF_ADDON])).text.trim();

describe('the package', { timeout: LIMIT }, () => {
  it('is small, and holds sources, maps and types, but nothing of a build', async () => {
    expect(statSync(packed.tarball).size).toBeLessThan(3_000_000);
    for (const name of ['lib/index.ts', 'dist/index.d.ts.map', 'dist/index.js.map', 'LICENSE']) {
      expect(existsSync(join(packed.installed, name)), name).toBe(true);
    }
    expect(existsSync(join(packed.installed, 'native/sanitize/build'))).toBe(false);
  });

  it('is what publint and attw want', async () => {
    const publint = await run(ROOT, 'npx', ['publint', '--strict', packed.tarball]);
    expect(publint.status, publint.text).toBe(0);
    const attw = await run(ROOT, 'npx', ['attw', packed.tarball, '--profile', 'node16', '--no-emoji']);
    expect(attw.status, attw.text).toBe(0);
  });

  it('is imported and required, and either way is the same library', async () => {
    const script = `const { createRequire } = await import('node:module');
      const required = createRequire(process.cwd() + '/x.js')('kvm-bridge');
      const { Kvm } = await import('kvm-bridge');
      for (const api of [required, { Kvm }]) {
        const kvm = api.Kvm.open({ arch: 's390x' });
        const vm = kvm.createVm();
        vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
        vm.memory.writeU32(0x1000, 0xcafe);
        console.log(vm.memory.readU32(0x1000));
      }`;
    const { status, text } = await packed.node(['--input-type=module', '-e', script]);
    expect({ status, text }).toEqual({ status: 0, text: '51966\n51966\n' });
  });

  it('has the same names for import and require', async () => {
    for (const name of ['index', 'raw', 's390x/index', 'ppc64/index', 'vhost-user/index']) {
      const names = `const { createRequire } = await import('node:module');
        const [cjs, esm] = [createRequire('/')(process.argv[1]), await import(process.argv[2])];
        console.log(Object.keys(cjs).sort().join() === Object.keys(esm).sort().join());`;
      const files = ['dist/cjs', 'dist'].map((folder) => join(packed.installed, folder, `${name}.js`));
      const { text } = await packed.node(['--input-type=module', '-e', names, ...files]);
      expect(text, name).toBe('true\n');
    }
  });
});

const SOURCE = `import { Kvm, KvmError, type Vm } from 'kvm-bridge';
import { EmulatedKernel } from 'kvm-bridge/raw';
import { decodeStorageKey } from 'kvm-bridge/s390x';
import { Htab } from 'kvm-bridge/ppc64';
import { VhostUserFrontEnd } from 'kvm-bridge/vhost-user';
export function f(vm: Vm): number { return vm.memory.readU32(0x1000); }
export const all = [Kvm, KvmError, EmulatedKernel, decodeStorageKey, Htab, VhostUserFrontEnd];
`;

/** The oldest that README promises is the one that attw brings along. */
const attw = createRequire(find.resolve('@arethetypeswrong/cli/package.json'));
const COMPILERS = {
  newest: find.resolve('typescript/bin/tsc'),
  oldest: createRequire(attw.resolve('@arethetypeswrong/core/package.json')).resolve('typescript/bin/tsc'),
};

describe('types', { timeout: LIMIT }, () => {
  it.each([
    ['newest', 'node16', 'node16', ['mts', 'cts']],
    ['newest', 'esnext', 'bundler', ['ts']],
    ['oldest', 'node16', 'node16', ['mts', 'cts']],
  ] as const)('are whole for the %s TypeScript, module %s, resolution %s', async (age, module, resolution, endings) => {
    const files = endings.map((ending) => `types.${ending}`);
    for (const file of files) writeFileSync(join(packed.app, file), SOURCE);
    const options = ['--noEmit', '--strict', '--target', 'es2022', '--types', 'node', '--module', module];
    const tsc = COMPILERS[age];
    const { status, text } = await packed.node([tsc, ...options, '--moduleResolution', resolution, ...files]);
    expect({ status, text }).toEqual({ status: 0, text: '' });
  });
});

describe.skipIf(!MAKES_PREBUILDS)('the install script', { timeout: LIMIT }, () => {
  it('uses the prebuilt addon where it is good, without a compiler', async () => {
    await packed.install();
    const { status, text } = await packed.runInstallScript(NO_COMPILER);
    expect(status).toBe(0);
    expect(text).toBe(
      `kvm-bridge: the prebuilt addon for ${PLATFORM} is used; it was made from the sources in native/, and loads.\n`,
    );
    expect(await addonPath()).toBe(join(packed.installed, 'prebuilds', PLATFORM, 'kvm_bridge.node'));
  });

  it.each([
    ['other sources', 'native/htab.cc', 'it was made from other sources than those in native/'],
    ['damage', `prebuilds/${PLATFORM}/kvm_bridge.node`, 'its bytes are not those that were made'],
  ])('sees %s, and says what it lacks to compile', async (_, file, why) => {
    await packed.install();
    appendFileSync(join(packed.installed, file), '\n');
    const { status, text } = await packed.runInstallScript(NO_COMPILER);
    expect(status).toBe(0);
    const [compiling, outcome] = text.trimEnd().split('\n');
    expect(compiling).toBe(
      `kvm-bridge: compiling the addon with node-gyp (half a minute), since there is no prebuilt one to use: ${why}.`,
    );
    expect(outcome).toMatch(
      /^kvm-bridge: only the emulated kernel is available, because the C\+\+ compiler \S+ was not found; install /,
    );
  });

  it('compiles on request, or says what it lacks for it', async () => {
    await packed.install();
    const { text } = await packed.runInstallScript({ ...NO_COMPILER, npm_config_build_from_source: 'true' });
    expect(text).toContain('since that was asked for (build_from_source)');
    expect(text).toContain('because the C++ compiler /nonexistent/g++ was not found');
  });

  it('is not needed, and one that was built here comes before the prebuilt one', async () => {
    await packed.install();
    expect(await addonPath()).toBe(join(packed.installed, 'prebuilds', PLATFORM, 'kvm_bridge.node'));
    const built = join(packed.installed, 'build/Release/kvm_bridge.node');
    mkdirSync(dirname(built), { recursive: true });
    cpSync(join(packed.installed, 'prebuilds', PLATFORM, 'kvm_bridge.node'), built);
    expect(await addonPath()).toBe(built);
    for (const name of ['build', 'prebuilds']) rmSync(join(packed.installed, name), { recursive: true });
    expect(await addonPath()).toContain(`the package holds no prebuilt one for ${PLATFORM}. Build one with`);
  });
});

describe('the emulated kernel instead of the real one', { timeout: LIMIT }, () => {
  const open = (options: string) =>
    packed.node(
      ['--input-type=module', '-e', `import { Kvm } from 'kvm-bridge'; Kvm.open(${options}); Kvm.open(${options});`],
      { KVM_BRIDGE_ADDON: '/nowhere.node' },
    );

  it.skipIf(!MAKES_PREBUILDS)('is told once, unless it was asked for', async () => {
    const { status, text } = await open('');
    expect(status).toBe(0);
    expect(
      text.match(/\[KVM_BRIDGE_EMULATED\] Warning: KVM of \S+ is emulated, since .*\/nowhere\.node/g),
    ).toHaveLength(1);
    for (const options of [
      "{ backend: 'auto' }",
      "{ backend: 'emulated' }",
      "{ arch: 's390x' }",
      "{ release: '6.1' }",
    ]) {
      expect((await open(options)).text, options).toBe('');
    }
  });
});

describe('a bundle', { timeout: LIMIT }, () => {
  const ENTRY = `import { loadNative } from 'kvm-bridge/raw'; const loaded = loadNative(); console.log(loaded.path ?? loaded.reason);`;
  const esbuild = (format: string, outfile: string) =>
    run(packed.app, join(ROOT, 'node_modules/.bin/esbuild'), [
      'entry.mjs',
      ...['--bundle', '--platform=node', '--log-level=error', `--format=${format}`, `--outfile=${outfile}`],
    ]);
  const MAKERS: Record<string, (outfile: string) => Promise<{ status: number | null; text: string }>> = {
    'esbuild, ESM': (outfile) => esbuild('esm', `${outfile}.mjs`),
    'esbuild, CommonJS': (outfile) => esbuild('cjs', `${outfile}.cjs`),
    rollup: (outfile) => {
      const config = `import { createRequire } from 'node:module'; import { dirname, join } from 'node:path';
        const folder = ${JSON.stringify(packed.installed)};
        export default { input: 'entry.mjs', external: /^node:/, output: { file: '${outfile}.mjs', inlineDynamicImports: true },
          plugins: [{ resolveId: (id) => id === 'kvm-bridge/raw' ? join(folder, 'dist/raw.js') : null }] };`;
      writeFileSync(join(packed.app, 'rollup.config.mjs'), config);
      return run(packed.app, join(ROOT, 'node_modules/.bin/rollup'), ['-c', 'rollup.config.mjs', '--silent']);
    },
    vite: (outfile) => {
      const config = `export default { logLevel: 'error', ssr: { noExternal: true, target: 'node' }, build: { ssr: 'entry.mjs', outDir: '.', emptyOutDir: false,
        rollupOptions: { output: { entryFileNames: '${outfile}.mjs', inlineDynamicImports: true } } } };`;
      writeFileSync(join(packed.app, 'vite.config.mjs'), config);
      return run(packed.app, join(ROOT, 'node_modules/.bin/vite'), ['build', '--config', 'vite.config.mjs']);
    },
  };

  it.skipIf(!MAKES_PREBUILDS).each(Object.keys(MAKERS))(
    'by %s finds the addon beside it, and far away says why it does not',
    async (name) => {
      await packed.install();
      const prebuilt = join(packed.installed, 'prebuilds', PLATFORM, 'kvm_bridge.node');
      writeFileSync(join(packed.app, 'entry.mjs'), ENTRY);
      const outfile = `bundle-${Object.keys(MAKERS).indexOf(name)}`;
      const made = await MAKERS[name]!(outfile);
      expect(made).toEqual({ status: 0, text: expect.not.stringContaining('rror') });
      const file = ['mjs', 'cjs']
        .map((ending) => `${outfile}.${ending}`)
        .find((each) => existsSync(join(packed.app, each)))!;
      expect((await packed.node([file])).text).toBe(`${prebuilt}\n`);

      const away = join(packed.app, '..', 'away', 'build');
      mkdirSync(away, { recursive: true });
      cpSync(join(packed.app, file), join(away, file));
      const moved = await packed.node([join(away, file)]);
      expect(moved.text).toContain(`This code was bundled into ${join(away, file)}, from where`);
      expect(moved.text).not.toContain('built');
      const named = await packed.node([join(away, file)], { KVM_BRIDGE_ADDON: prebuilt });
      expect(named.text).toBe(`${prebuilt}\n`);
    },
  );
});
