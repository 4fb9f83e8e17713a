import { describe, expect, it } from 'vitest';
import {
  findArchive,
  mirrorFromSources,
  mirrorFromTemplate,
  securityFromSources,
} from '../../../../lib/lab/archive/mirror.ts';

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

describe("Debian's security archive", () => {
  it('is found among the sources, and is not the main one', () => {
    const text =
      'Types: deb\nURIs: http://m.test/debian\nSuites: bookworm\nComponents: main\n\n' +
      'Types: deb\nURIs: http://m.test/debian-security/\nSuites: bookworm-security\nComponents: main\n';
    expect(securityFromSources(deb822(text))).toBe('http://m.test/debian-security');
    expect(mirrorFromSources(deb822(text))).toBe('http://m.test/debian');
    expect(securityFromSources(list('deb http://m.test/debian bookworm main'))).toBeUndefined();
  });

  it('is beside a main one that was chosen by hand', () => {
    expect(findArchive({ KVM_BRIDGE_DEBIAN_MIRROR: 'http://m.test/debian/' })).toEqual({
      apt: 'http://m.test/debian',
      main: ['http://m.test/debian'],
      security: ['http://m.test/debian-security'],
      snapshot: undefined,
    });
    const dated = 'http://m.test/archive/debian/20260101T000000Z';
    expect(findArchive({ KVM_BRIDGE_DEBIAN_MIRROR: dated }).security).toEqual([
      'http://m.test/archive/debian-security/20260101T000000Z',
    ]);
    expect(findArchive({ KVM_BRIDGE_DEBIAN_MIRROR: 'file:/srv/packages' }).security).toEqual([]);
  });

  it.each(['KVM_BRIDGE_DEBIAN_MIRROR', 'KVM_BRIDGE_DEBIAN_SNAPSHOT'])('needs an address in %s', (name) => {
    const environment = { KVM_BRIDGE_DEBIAN_MIRROR: 'http://m.test/debian', [name]: 'm.test' };
    expect(() => findArchive(environment)).toThrow(`${name} is "m.test", which is not the address of an archive`);
  });
});
