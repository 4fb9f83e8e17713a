import { expect, it } from 'vitest';
import { EmulatedKernel } from '../../../lib/raw.ts';
import { parseRelease, releaseOfHost } from '../../../lib/uapi/release.ts';

it('is what uname -r says, or its beginning', () => {
  const release = parseRelease('6.12.107+deb13-s390x');
  expect(release.text).toBe('6.12');
  expect([release.since(6, 12), release.since(6, 13), release.since(7, 0), release.since(5, 20)]).toEqual([
    true,
    false,
    false,
    true,
  ]);
});

it.each(['5.15', '6.0', '4.18.0-553.el8.x86_64', '2.6'])('is refused where nothing is known of it: %s', (release) => {
  const message = `The value of "release" is out of range. It must be 6.1 or newer (older ones are not emulated). Received '${release}'`;
  expect(() => parseRelease(release)).toThrow(message);
  expect(() => new EmulatedKernel({ arch: 's390x', release })).toThrow(message);
});

it('of a host is the nearest that is known', () => {
  expect(releaseOfHost('5.14.0-427.el9.x86_64').text).toBe('6.1');
  expect(releaseOfHost('6.18.3').text).toBe('6.18');
  expect(releaseOfHost('7.9.0-rc1').text).toBe('7.9');
  expect(releaseOfHost('unknown').text).toBe('6.12');
});
