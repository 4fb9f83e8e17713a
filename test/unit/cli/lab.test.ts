import { describe, expect, it } from 'vitest';
import { cli } from '../../../lib/cli/cli.ts';
import { fakeIo } from './fake-io.ts';

describe('kvm-bridge lab', () => {
  it.each([
    [[], 'which architecture? There are s390x, ppc64, x86_64, aarch64, riscv64'],
    [['s390', 'a.mjs'], 'there is no lab s390; did you mean s390x?'],
    [['s390x', '--kernel', '5.4', 'a.mjs'], 'there is no lab s390x with kernel 5.4; there are 6.12, 7.2, 6.1'],
    [['s390x'], 'a script, or --shell?'],
    [['s390x', '--shell', 'a.mjs'], '--shell takes no script'],
    [['s390x', '--timeout', 'never', '--', 'a.mjs'], '--timeout is a number of minutes up to 1440, not "never"'],
    [['s390x', '--kernle', '6.1', 'a.mjs'], 'there is no option --kernle; did you mean --kernel?'],
  ])('refuses %j in two lines', async (args, message) => {
    const io = fakeIo();
    expect(await cli(['lab', ...args], io)).toBe(2);
    expect(io.err()).toBe(`kvm-bridge lab: ${message}\n\`kvm-bridge lab --help\` says what there is.\n`);
  });

  it('says that there is no such script before anything is fetched', async () => {
    const io = fakeIo();
    expect(await cli(['lab', 's390x', '--', '/nowhere/test.mjs'], io)).toBe(125);
    expect(io.err()).toBe(
      'kvm-bridge lab: /nowhere/test.mjs: no such file or directory (ENOENT)\n`kvm-bridge lab --help` says what there is.\n',
    );
  });

  it('lists the labs, the default of each architecture first', async () => {
    const io = fakeIo();
    expect(await cli(['lab', '--list'], io)).toBe(0);
    expect(io.out()).toMatch(/^s390x-6\.12 {5}MEM_OP/);
    const json = fakeIo();
    expect(await cli(['lab', '--list', '--json'], json)).toBe(0);
    const labs = JSON.parse(json.out()) as { readonly id: string }[];
    expect(labs[0]).toEqual({
      id: 's390x-6.12',
      arch: 's390x',
      kernel: '6.12',
      note: expect.stringMatching(/^MEM_OP/),
    });
    expect(labs).toHaveLength(io.out().trimEnd().split('\n').length);
    const one = fakeIo();
    expect(await cli(['lab', '--list', 'ppc64'], one)).toBe(0);
    expect(one.out()).toMatch(/^(ppc64-\d.*\n){3}$/);
    const alone = fakeIo();
    expect(await cli(['lab', 's390x', '--json', 'x.mjs'], alone)).toBe(2);
    expect(alone.err()).toContain('--json goes with --list');
  });
});
