import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';

// The package's install script in a package of its own, with something in place of node-gyp.
const native = fileURLToPath(new URL('../../../native', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'kvm-bridge-install-'));
const { explainFailure } = (await import(join(native, 'build-failure.mjs'))) as {
  explainFailure(output: string): { readonly reason: string; readonly mend: string };
};
const log = join(root, 'build', 'install.log');
afterAll(() => rmSync(root, { recursive: true }));

beforeEach(() => {
  rmSync(root, { recursive: true });
  cpSync(native, join(root, 'native'), { recursive: true, filter: (path) => !path.includes('sanitize') });
});

/** What the script says when node-gyp is a program that does this. */
function installWith(program: string, env: NodeJS.ProcessEnv = {}, ...args: string[]) {
  const nodeGyp = join(root, 'fake-node-gyp.js');
  writeFileSync(nodeGyp, program);
  return install({ npm_config_node_gyp: nodeGyp, ...env }, ...args);
}

function install(env: NodeJS.ProcessEnv, ...args: string[]) {
  const { npm_config_node_gyp: _, ...others } = process.env;
  const { status, stdout } = spawnSync(process.execPath, [join(root, 'native', 'install.mjs'), ...args], {
    encoding: 'utf8',
    env: { ...others, ...env },
  });
  return { status, said: stdout };
}

/** node-gyp that prints this and fails. */
const printing = (text: string): string => `process.stderr.write(${JSON.stringify(text)}); process.exit(1);`;

const compiler = ['g++', 'c++', 'clang++'].find((name) => spawnSync(name, ['--version']).status === 0);

describe('when the addon cannot be built', () => {
  it.skipIf(compiler === undefined)('the compiler’s own error is told, and where its output is', () => {
    const source = join(root, 'broken.cc');
    writeFileSync(source, '#include <error_codes_that_do_not_exist>\n');
    // Real words of the compiler; around them is what make and node-gyp say.
    const { status, said } = installWith(`
      if (process.argv[2] === 'configure') process.exit(0);
      console.log('  CXX(target) Release/obj.target/kvm_bridge/native/error.o');
      const { spawnSync } = require('node:child_process');
      process.stderr.write(spawnSync('${compiler}', ['-c', '${source}', '-o', '/dev/null'], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } }).stderr);
      process.stderr.write('make: *** [kvm_bridge.target.mk:1: broken.o] Error 1\\ngyp ERR! build error\\n');
      process.exit(1);
    `);
    expect(status).toBe(0);
    expect(said).toMatch(/because compiling failed: \S*broken\.cc:1:\d+: fatal error: .*error_codes_that_do_not_exist/);
    expect(said).toContain('please report it with the log');
    expect(said).not.toContain('apt-get');
    expect(said).toContain(`What was printed is in ${log}.`);
    expect(readFileSync(log, 'utf8')).toContain('gyp ERR! build error');
  });

  // What each tool prints, by its sources or as seen.
  it.each([
    [
      'Python',
      'gyp ERR! find Python\ngyp ERR! find Python You need to install the latest version of Python.\n',
      /no Python 3 was found/,
      'apt-get install python3`',
    ],
    ['make', 'gyp ERR! stack Error: not found: make\n', /`make` was not found/, 'apt-get install make`'],
    [
      'g++, missed by make',
      'make: g++: No such file or directory\nmake: *** [x.mk:1: a.o] Error 127\n',
      /the C\+\+ compiler g\+\+ was not found/,
      'dnf install gcc-c++`',
    ],
    [
      'g++, missed by a shell',
      '/bin/sh: 1: g++: not found\n',
      /the C\+\+ compiler g\+\+ was not found/,
      'apt-get install g++`',
    ],
    [
      'the header of the kernel',
      'kvm_abi.h:5:10: fatal error: linux/kvm.h: No such file or directory\n',
      /header linux\/kvm\.h was not found/,
      'apt-get install linux-libc-dev`',
    ],
    [
      'the network',
      'gyp ERR! stack FetchError: getaddrinfo EAI_AGAIN somewhere\n',
      /headers of this Node\.js could not be downloaded/,
      'npm_config_nodedir',
    ],
    ['C++17', 'g++: error: unrecognized command line option ‘-std=c++17’\n', /does not know C\+\+17/, 'install GCC 8'],
    [
      'memory',
      'g++: fatal error: Killed signal terminated program cc1plus\n',
      /the compiler was killed/,
      'more memory',
    ],
    [
      'the disk',
      'a.cc:1:1: fatal error: error writing to /tmp/x.s: No space left on device\n',
      /the disk is full/,
      'make room',
    ],
    [
      'a dependency',
      "Error: Cannot find module 'node-addon-api'\n",
      /node-addon-api is not installed/,
      '`npm install`',
    ],
    [
      'a symbol',
      'x.o: in function `f`:\na.cc:(.text+0x5): undefined reference to `g()`\n',
      /linking failed: a\.cc.*undefined reference/,
      'report it',
    ],
    ['nothing known', 'gyp ERR! stack Error: the moon is full\n', /node-gyp failed: the moon is full/, 'see the log'],
    ['nothing said', '', /node-gyp failed: it said nothing/, 'see the log'],
  ])('the advice fits what is missing: %s', (_what, text, reason, mend) => {
    const explained = explainFailure(text);
    expect(explained.reason).toMatch(reason);
    expect(explained.mend).toContain(mend);
  });

  it('all of it is one line, behind the one that says why it was compiled', () => {
    const { status, said } = installWith(printing('gyp ERR! stack Error: not found: make\n'));
    expect(status).toBe(0);
    expect(said.trimEnd().split('\n')).toHaveLength(2);
    expect(said).toMatch(/because `make` was not found; install it \(.*\) and run `npm rebuild kvm-bridge`\. What was/);
    expect(existsSync(log)).toBe(true);
  });

  it('a killed node-gyp is told, and one that cannot be started', () => {
    expect(installWith("process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 1000);").said).toContain(
      'node-gyp was ended by SIGKILL',
    );
    const program = join(root, 'no-program');
    writeFileSync(program, '#!/nowhere/at/all\n');
    chmodSync(program, 0o755);
    expect(install({ npm_config_node_gyp: program }).said).toMatch(/node-gyp failed: spawnSync .* ENOENT/);
  });

  it('--strict fails', () => {
    expect(installWith(printing('gyp ERR! not ok\n'), {}, '--strict').status).toBe(1);
  });

  it('much that was printed before is no failure of its own', () => {
    const { said } = installWith(
      `process.stdout.write('x'.repeat(3e6) + '\\n'); ${printing('gyp ERR! stack Error: not found: make\n')}`,
    );
    expect(said).toContain('`make` was not found');
  });
});

describe('node-gyp', () => {
  it('is a program: a folder or a text on the PATH that is called so is none', () => {
    const folders = ['folder', 'text', 'program'].map((name) => join(root, name));
    mkdirSync(join(root, 'folder', 'node-gyp'), { recursive: true });
    for (const folder of folders.slice(1)) {
      mkdirSync(folder);
      writeFileSync(join(folder, 'node-gyp'), '#!/bin/sh\necho "gyp ERR! stack Error: started from $0" >&2\nexit 1\n');
    }
    chmodSync(join(root, 'text', 'node-gyp'), 0o644);
    chmodSync(join(root, 'program', 'node-gyp'), 0o755);
    const PATH = [...folders, dirname('/bin/sh')].join(delimiter);
    expect(install({ PATH }).said).toContain(`started from ${join(root, 'program', 'node-gyp')}`);
    // What npm names must be there too.
    expect(install({ PATH, npm_config_node_gyp: folders[0]! }).said).toContain('started from');
  });
});

it('a build that works leaves no log of one that did not', () => {
  installWith(printing(''));
  expect(existsSync(log)).toBe(true);
  const { status, said } = installWith('process.exit(0);');
  expect({ status, said }).toEqual({ status: 0, said: expect.stringContaining('built') });
  expect(existsSync(log)).toBe(false);
});
