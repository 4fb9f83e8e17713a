import { describe, expect, it } from 'vitest';
import { mirrorFromSources, mirrorFromTemplate } from '../../lab/debian-mirror.ts';
import { describeMissing, parseQemuVersion, toolsFor } from '../../lab/host-tools.ts';
import { networkSettings, packageSpec, parsePrintedUris } from '../../lab/packages.ts';
import { VARIANTS } from '../../lab/variants.ts';

const list = (text: string) => [{ name: '/etc/apt/sources.list', text }];
const deb822 = (text: string) => [{ name: '/etc/apt/sources.list.d/debian.sources', text }];

describe("the machine's Debian mirror", () => {
  it('is found in one-line sources, whatever their options', () => {
    expect(
      mirrorFromSources(list('# deb http://no/debian sid main\ndeb http://mirror.test/debian/ bookworm main\n')),
    ).toBe('http://mirror.test/debian');
    expect(
      mirrorFromSources(list('deb [arch=amd64 signed-by=/x.gpg] https://m.test/debian trixie main non-free # x')),
    ).toBe('https://m.test/debian');
  });

  it('is found in deb822 sources, also with folded fields and comments', () => {
    const text =
      'Types: deb deb-src\n# a comment\nURIs:\n http://m.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n';
    expect(mirrorFromSources(deb822(text))).toBe('http://m.test/debian');
  });

  it('is a list of mirrors or a dated copy, where the machine uses one', () => {
    const mirrors = 'mirror+file:/etc/apt/mirrors/debian.list';
    expect(mirrorFromSources(list(`deb ${mirrors} trixie main`))).toBe(mirrors);
    const dated = 'http://s.test/archive/debian/20260101T000000Z';
    expect(mirrorFromSources(list(`deb ${dated} trixie main`))).toBe(dated);
  });

  it.each([
    [
      'a disabled source',
      deb822('Types: deb\nURIs: http://m.test/debian\nSuites: trixie\nComponents: main\nEnabled: no\n'),
    ],
    ['sources of sources', list('deb-src http://m.test/debian trixie main')],
    ['the security archive', list('deb http://m.test/debian-security bookworm-security main')],
    ['another distribution', list('deb http://m.test/ubuntu noble main')],
    ["another vendor's archive", list('deb http://m.test/linux/debian bookworm stable')],
    ['nothing', []],
  ])('is not %s', (_, files) => {
    expect(mirrorFromSources(files)).toBeUndefined();
  });

  it("is what python-apt knows, on machines of Debian's descendants", () => {
    const text = 'Suite: trixie\nRepositoryType: deb\nBaseURI: http://m.test/debian/\nMatchURI: m\n';
    expect(mirrorFromTemplate(text)).toBe('http://m.test/debian');
    expect(mirrorFromTemplate('BaseURI: http://m.test/debian-security\n')).toBeUndefined();
    expect(mirrorFromTemplate(undefined)).toBeUndefined();
  });
});

describe('missing tools', () => {
  const s390x = VARIANTS[0]!.machine;

  it('are named with the command that installs them', () => {
    const sentence = describeMissing(toolsFor(s390x), (needs) => !/s390x|xz/.test(needs));
    expect(sentence).toContain('lacks qemu-system-s390x, s390x-linux-gnu-g++, xz;');
    expect(sentence).toMatch(
      /apt-get install .* qemu-system-s390x g\+\+-s390x-linux-gnu libc6-dev-s390x-cross xz-utils$/,
    );
  });

  it('are not mentioned if there are none', () => {
    expect(describeMissing(toolsFor(s390x), () => true)).toBeUndefined();
  });

  it('include a QEMU that is too old, by what it says of itself', () => {
    expect(parseQemuVersion('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright')).toEqual([7, 2]);
    expect(parseQemuVersion('QEMU emulator version 10.0.2')).toEqual([10, 0]);
    expect(parseQemuVersion('no idea')).toBeUndefined();
  });
});

describe('what apt prints', () => {
  it('gives each package with its size and digest', () => {
    const digest = 'ab'.repeat(32);
    const text = `'http://m.test/debian/pool/b_1%3a1.deb' b_1%3a1.37-6+b9_s390x.deb 925856 SHA256:${digest}\nReading lists\n`;
    expect(parsePrintedUris(text)).toEqual([{ file: 'b_1%3a1.37-6+b9_s390x.deb', bytes: 925856, sha256: digest }]);
  });

  it('gives no package without a digest to verify it by', () => {
    expect(parsePrintedUris("'http://m.test/b.deb' b_1_s390x.deb 9 MD5Sum:00")).toEqual([]);
  });

  it('names versions with the epoch in them', () => {
    expect(packageSpec('busybox-static_1%3a1.37.0-6+b9_s390x.deb')).toBe('busybox-static=1:1.37.0-6+b9');
    expect(() => packageSpec('nonsense.deb')).toThrow('not the name');
  });

  it('lends its proxies and certificates, but neither its hooks nor its sources', () => {
    const dump = 'Acquire::http::Proxy "http://p.test:1";\nAPT::Update::Post-Invoke:: "rm";\nDir::Etc "etc/apt";\n';
    expect(networkSettings(dump)).toBe('Acquire::http::Proxy "http://p.test:1";');
  });
});
