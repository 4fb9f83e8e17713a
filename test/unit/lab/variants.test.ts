import { describe, expect, it } from 'vitest';
import { initScript } from '../../../lib/lab/init-script.ts';
import { selectVariants, VARIANTS } from '../../../lib/lab/variants.ts';

describe('the labs', () => {
  it('have names of their own', () => {
    expect(new Set(VARIANTS.map(({ id }) => id)).size).toBe(VARIANTS.length);
  });

  it('are chosen by architecture, the newest kernel first, or by kernel series', () => {
    expect(selectVariants('ppc64')?.map(({ id }) => id)).toEqual(['ppc64-6.12']);
    expect(selectVariants('ppc64', '6.1')?.map(({ id }) => id)).toEqual(['ppc64-6.1']);
    expect(selectVariants('all')).toEqual(VARIANTS);
    expect(selectVariants('all', '6.1')?.map(({ id }) => id)).toEqual(['s390x-6.1', 'ppc64-6.1', 'x86_64-6.1']);
    expect(selectVariants('mips')).toBeUndefined();
    expect(selectVariants('aarch64', '6.1')).toBeUndefined();
  });
});

describe("the guest's init", () => {
  const s390x = VARIANTS.find(({ id }) => id === 's390x-6.12')!;

  it('allows page tables with storage keys before it starts Node on s390x', () => {
    const lines = initScript(s390x, { line: 'node job.js', folder: '/app' }).split('\n');
    const allow = lines.findIndex((line) => line.includes('/proc/sys/vm/allocate_pgste'));
    const insmod = lines.findIndex((line) => line.includes('insmod'));
    expect(insmod).toBeGreaterThan(0);
    expect(allow).toBeGreaterThan(insmod);
    expect(lines.indexOf('node job.js')).toBeGreaterThan(allow);
  });

  it('leaves out modules that the machine is to do without', () => {
    const machine = { ...s390x.machine, modulesLeftOut: '*-kvm*' };
    const script = initScript({ ...s390x, machine }, { line: 'node job.js', folder: '/app' });
    expect(script).toMatch(/ in \*-kvm\*\) continue ;; esac\n.* insmod "\$module"/);
    expect(initScript(s390x, { line: 'node job.js', folder: '/app' })).not.toContain('continue');
  });

  it("gives a shell the user's terminal", () => {
    const script = initScript(s390x, {
      line: 'node cli.js',
      folder: '/app',
      terminal: { columns: 132, rows: 43, type: 'xterm' },
    });
    expect(script).toContain('stty cols 132 rows 43\nsetsid cttyhack node cli.js\n');
    expect(script).toContain('export TERM=xterm\n');
  });
});
