import { describe, expect, it } from 'vitest';
import { networkSettings } from '../../../lib/lab/archive/apt.ts';
import { configuredProxy } from '../../../lib/lab/archive/http.ts';
import { describeMissing, toolsFor } from '../../../lib/lab/host-tools.ts';
import { parseQemuVersion } from '../../../lib/lab/qemu.ts';
import { VARIANTS } from '../../../lib/lab/variants.ts';
import { compilerOf } from '../../lab/addon.ts';

describe('missing tools', () => {
  const s390x = VARIANTS[0]!.machine;

  it('are named with the command that installs them', () => {
    const sentence = describeMissing([...toolsFor(s390x), compilerOf(s390x)], (needs) => !/s390x|xz/.test(needs));
    expect(sentence).toContain('lacks qemu-system-s390x, xz, s390x-linux-gnu-g++;');
    expect(sentence).toMatch(
      /apt-get install .* qemu-system-s390x xz-utils g\+\+-s390x-linux-gnu libc6-dev-s390x-cross$/,
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

describe("apt's configuration", () => {
  it('lends its proxies and certificates, but neither its hooks nor its sources', () => {
    const dump = 'Acquire::http::Proxy "http://p.test:1";\nAPT::Update::Post-Invoke:: "rm";\nDir::Etc "etc/apt";\n';
    expect(networkSettings(dump)).toBe('Acquire::http::Proxy "http://p.test:1";');
  });

  it('names a proxy for a host, for a scheme, or none', () => {
    const dump =
      'Acquire::http::Proxy "http://p.test:1";\nAcquire::http::Proxy::m.test "DIRECT";\nAcquire::https "";\n';
    expect(configuredProxy(dump, 'http', 'n.test')).toBe('http://p.test:1');
    expect(configuredProxy(dump, 'https', 'n.test')).toBe('http://p.test:1');
    expect(configuredProxy(dump, 'http', 'm.test')).toBe('DIRECT');
    expect(configuredProxy('Acquire::http::Timeout "3";\n', 'http', 'm.test')).toBeUndefined();
  });
});
