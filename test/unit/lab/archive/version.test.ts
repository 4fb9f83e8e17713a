import { describe, expect, it } from 'vitest';
import { compareVersions } from '../../../../lib/lab/archive/version.ts';
import { runCommand } from '../../../../lib/lab/command.ts';
import { isPresent } from '../../../../lib/lab/host-tools.ts';

/** In ascending order; those of Debian's packages, and the corners of the rule. */
const ORDERED = [
  '0~~',
  '0~~a',
  '0~',
  '0',
  '0a',
  '0+',
  '0+b1',
  '0.0',
  '1.0~rc1-1',
  '1.0-1~bpo12+1',
  '1.0-1',
  '1.0-1+deb13u1',
  '1.0-1.1',
  '1.0-9',
  '1.0-10',
  '1.0+dfsg-1',
  '6.12.107-1',
  '6.12.117-1',
  '20.19.2+dfsg-1+deb13u3',
  '24.21.0+dfsg+~cs24.13.4-1',
  '1:0.1-1',
  '1:1.3.dfsg+really1.3.1-1+b1',
  '1:1.3.dfsg+really1.3.2-3',
  '10:0',
];

describe('the order of versions', () => {
  it('is the one of the corners and of real packages', () => {
    for (const [i, a] of ORDERED.entries()) {
      for (const [j, b] of ORDERED.entries())
        expect([a, b, Math.sign(compareVersions(a, b))]).toEqual([a, b, Math.sign(i - j)]);
    }
  });

  it.skipIf(!isPresent('dpkg'))('is that of dpkg (this test needs dpkg)', async () => {
    const pairs = ORDERED.slice(1).map((version, index) => [ORDERED[index]!, version] as const);
    for (const [older, newer] of pairs) await runCommand('dpkg', ['--compare-versions', older, 'lt', newer]);
  });

  it('knows versions that are the same', () => {
    expect(compareVersions('1.0-1', '0:1.0-1')).toBe(0);
    expect(compareVersions('1.00-1', '1.0-1')).toBe(0);
    expect(compareVersions('1.0', '1.0-0')).toBe(0);
  });
});
