import { describe, expect, it } from 'vitest';
import { type Asked, jobOf, scriptIn } from '../../../../lib/lab/user/job.ts';

const project = { root: '/somewhere/my vmm', home: '/home/my_vmm', folder: '/home/my_vmm/test' };
const asked = (nodeArguments: readonly string[], more: Partial<Asked> = {}): Asked => ({
  nodeArguments,
  cwd: '/somewhere/my vmm/test',
  environment: {},
  ...more,
});

describe('what a lab is to run', () => {
  it.each([
    [['a.mjs', '-x'], 'a.mjs'],
    [['--test'], undefined],
    [['--test', 'a.test.mjs'], 'a.test.mjs'],
    // Standard input is the script: what follows are its arguments.
    [['-', 'a.mjs'], undefined],
    [[], undefined],
  ])('is, of %j, the script %j', (line, script) => {
    expect(scriptIn(line)).toBe(script);
  });

  it('names files by where they lie there', () => {
    const line = ['a.mjs', '/somewhere/my vmm/data.bin', '/etc/hosts', 'b.mjs'];
    expect(jobOf(asked(line), project)).toMatchObject({
      nodeArguments: ['a.mjs', '/home/my_vmm/data.bin', '/etc/hosts', 'b.mjs'],
      folder: '/home/my_vmm/test',
    });
    const fromElsewhere = asked(['my vmm/test/a.mjs', 'b.mjs'], { cwd: '/somewhere' });
    expect(jobOf(fromElsewhere, project).nodeArguments).toEqual(['/home/my_vmm/test/a.mjs', 'b.mjs']);
  });

  it('gets a folder for what is brought back, named in its environment', () => {
    const environment = { FORCE_COLOR: '1' };
    expect(jobOf(asked(['a.mjs'], { environment }), project)).toMatchObject({ out: undefined, environment });
    const inside = jobOf(asked(['a.mjs'], { environment, out: '/somewhere/my vmm/results' }), project);
    expect(inside.out).toBe('/home/my_vmm/results');
    expect(inside.environment).toEqual({ ...environment, KVM_BRIDGE_LAB_OUT: '/home/my_vmm/results' });
    expect(jobOf(asked(['a.mjs'], { out: '/tmp/results' }), project).out).toBe('/out');
  });

  it('has a standard input only if it was given one, be it empty', () => {
    expect(jobOf(asked(['-']), project).hasInput).toBe(false);
    expect(jobOf(asked(['-', 'a'], { input: new Uint8Array() }), project)).toMatchObject({
      hasInput: true,
      nodeArguments: ['-', 'a'],
    });
  });
});
