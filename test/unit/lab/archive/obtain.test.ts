import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readSuiteIndex } from '../../../../lib/lab/archive/apt.ts';
import { obtainPart } from '../../../../lib/lab/archive/obtain.ts';
import { formatLock } from '../../../../lib/lab/archive/part-lock.ts';
import type { Part } from '../../../../lib/lab/archive/parts.ts';
import type { PackageFile } from '../../../../lib/lab/archive/suite-index.ts';
import { isPresent } from '../../../../lib/lab/host-tools.ts';
import { packageOf, TinyArchive } from './tiny-archive.ts';

const tools = ['curl', 'flock', 'setpriv', 'apt-config', 'apt-get'].filter((tool) => !isPresent(tool));
const part: Part = {
  id: 'tiny',
  debianArch: 's390x',
  what: 'a',
  suites: ['trixie'],
  wish: () => ({ roots: [[{ name: 'a' }]] }),
};
const contents = { a: Buffer.alloc(100_000, 'a'), b: Buffer.alloc(30_000, 'b') };
const [a, b] = [packageOf('a', contents.a), packageOf('b', contents.b)];

describe.skipIf(tools.length > 0)(`fetching what a lock names (needs ${tools.join(', ') || 'no more'})`, () => {
  let folder: string;
  let archive: TinyArchive;
  let told: string[];

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-archive-'));
    archive = await TinyArchive.start();
    told = [];
    // Neither the proxies nor the sources of the machine on which the tests run.
    await writeFile(join(folder, 'apt.conf'), 'Dir::Etc::parts "/dev/null";\nDir::Etc::main "/dev/null";\n');
    vi.stubEnv('APT_CONFIG', join(folder, 'apt.conf'));
    vi.stubEnv('KVM_BRIDGE_DEBIAN_MIRROR', archive.address);
    vi.stubEnv('KVM_BRIDGE_DEBIAN_SNAPSHOT', '');
    for (const name of ['http_proxy', 'https_proxy', 'all_proxy']) vi.stubEnv(name, '');
    put(a, contents.a);
    put(b, contents.b);
    await lock([a, b]);
  });

  afterEach(async () => {
    vi.unstubAllEnvs();
    await archive[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const put = (file: PackageFile, content: Buffer, base = '/debian/') =>
    archive.files.set(`${base}${file.paths[0]}`, content);

  async function lock(packages: readonly PackageFile[]): Promise<void> {
    await mkdir(join(folder, 'locks'), { recursive: true });
    await writeFile(
      join(folder, 'locks/tiny.json'),
      formatLock({ resolved: new Date('2026-11-28T20:00:00Z'), packages }),
    );
  }

  const obtain = (refresh = false) =>
    obtainPart(part, {
      cache: join(folder, 'cache'),
      locks: join(folder, 'locks'),
      refresh,
      onProgress: (line) => told.push(line),
    });
  const cached = () =>
    readdirSync(join(folder, 'cache/packages/s390x'))
      .filter((name) => name.endsWith('.deb'))
      .sort();

  it('asks for every file first, keeps what has the digest, and uses no network afterwards', async () => {
    const packages = await obtain();
    expect(packages.map(({ path }) => readFileSync(path))).toEqual([contents.a, contents.b]);
    const gets = archive.requests.findIndex((each) => each.startsWith('GET'));
    expect(archive.requests.slice(0, gets).map((each) => each.split(' ')[0])).toEqual(['HEAD', 'HEAD']);
    expect(told.at(-1)).toBe('a 1.0-1: 2 packages of trixie (0 MiB), resolved 2026-11-28');

    archive.requests.length = 0;
    await obtain();
    expect(archive.requests).toEqual([]);
  });

  it('fetches a package anew that has changed in the cache', async () => {
    const [first] = await obtain();
    await writeFile(first!.path, Buffer.alloc(a.bytes, 'x'));
    archive.requests.length = 0;
    await obtain();
    expect(readFileSync(first!.path)).toEqual(contents.a);
    expect(archive.requests).toHaveLength(2);
  });

  it('keeps nothing of half a download but the part, and goes on with that the next time', async () => {
    archive.breakAfter = 40_000;
    await expect(obtain()).rejects.toThrow(
      /^a_1\.0-1_s390x\.deb of trixie did not arrive: .*\/debian\/pool\/main\/a\/a\//,
    );
    expect(cached()).toEqual(['b_1.0-1_s390x.deb']);

    archive.breakAfter = undefined;
    archive.requests.length = 0;
    const [first] = await obtain();
    expect(readFileSync(first!.path)).toEqual(contents.a);
    expect(archive.requests.filter((each) => each.startsWith('GET'))).toEqual([
      `GET /debian/${a.paths[0]} bytes=40000-`,
    ]);
  });

  it.each([
    ['that belongs to something else', true],
    ['with which the server cannot go on', false],
  ])('fetches all of it where there is a part %s', async (_, ranges) => {
    archive.ranges = ranges;
    await mkdir(join(folder, 'cache/packages/s390x/partial'), { recursive: true });
    await writeFile(join(folder, 'cache/packages/s390x/partial/a_1.0-1_s390x.deb'), Buffer.alloc(50_000, 'z'));
    const [first] = await obtain();
    expect(readFileSync(first!.path)).toEqual(contents.a);
  });

  it('takes a file of another digest for none', async () => {
    put(a, Buffer.alloc(a.bytes, 'x'));
    await expect(obtain()).rejects.toThrow('a_1.0-1_s390x.deb of trixie did not arrive: its SHA-256 is another one');
    expect(cached()).toEqual(['b_1.0-1_s390x.deb']);
    expect(readdirSync(join(folder, 'cache/packages/s390x/partial'))).toEqual([]);
  });

  it('looks under the same digest in the security archive, and in a snapshot of the day of the lock', async () => {
    vi.stubEnv('KVM_BRIDGE_DEBIAN_SNAPSHOT', archive.address.replace('/debian', '/snap'));
    archive.files.clear();
    const moved = { ...a, paths: [...a.paths, 'pool/updates/main/a/a/a_1.0-1_s390x.deb'] };
    await lock([moved, b]);
    archive.files.set(`/debian-security/${moved.paths[1]}`, contents.a);
    put(b, contents.b, '/snap/archive/debian/20261128T200000Z/');
    const packages = await obtain();
    expect(packages.map(({ path }) => readFileSync(path))).toEqual([contents.a, contents.b]);
  });

  it('says what was tried if a file is nowhere, and the archive has no index that could be trusted', async () => {
    archive.files.delete(`/debian/${a.paths[0]}`);
    const release = `Suite: trixie\nCodename: trixie\nArchitectures: s390x\nComponents: main\nDate: ${new Date().toUTCString()}\nSHA256:\n`;
    archive.files.set('/debian/dists/trixie/Release', Buffer.from(release));
    await expect(obtain()).rejects.toThrow(
      /^No whole set of a for s390x is in the archive: no index was read \(tried: no suite; the index could not be read of trixie \(apt-get failed: .*\)\)\.$/,
    );
    expect(told).toContain("the archive no longer has a_1.0-1_s390x.deb; another set than the lock's is looked for");
    expect(existsSync(join(folder, 'cache/packages/s390x/a_1.0-1_s390x.deb'))).toBe(false);
  });

  it('does not take an index that nobody signed', async () => {
    const release = 'Suite: trixie\nCodename: trixie\nArchitectures: s390x\nComponents: main\nSHA256:\n';
    archive.files.set('/debian/dists/trixie/InRelease', Buffer.from(release));
    const options = { folder: join(folder, 'apt'), debianArch: 's390x', suite: 'trixie', mirror: archive.address };
    await expect(readSuiteIndex(options)).rejects.toThrow(/apt-get failed: E: .*(sign|InRelease)/);
  });

  it('ends soon where nobody answers', async () => {
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
    const { port } = closed.address() as { port: number };
    await new Promise((resolve) => closed.close(resolve));
    vi.stubEnv('KVM_BRIDGE_DEBIAN_MIRROR', `http://127.0.0.1:${port}/debian`);
    for (const refresh of [false, true]) {
      await expect(obtain(refresh)).rejects.toThrow(
        `The Debian archive at http://127.0.0.1:${port}/debian cannot be reached: Failed to connect to 127.0.0.1 port ${port}`,
      );
    }
  });

  it('is done once where two labs want it at the same time', async () => {
    const [one, other] = await Promise.all([obtain(), obtain()]);
    expect(one.map(({ path }) => path)).toEqual(other.map(({ path }) => path));
    expect(archive.requests.filter((each) => each.startsWith('GET'))).toHaveLength(2);
  });
});
