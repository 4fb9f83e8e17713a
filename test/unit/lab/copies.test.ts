import { describe, expect, it } from 'vitest';
import { Kvm } from '../../../lib/index.ts';
import { EmulatedKernel } from '../../../lib/raw.ts';
import { copies } from '../../lab/guest/copies.ts';
import { copiesTable } from '../../lab/moves.ts';

const noProgress = (): void => {};

describe('the copies that labs make of what frames and tables have', () => {
  it.each([
    ['s390x', '6.12', 2],
    ['s390x', '7.2', 2],
    ['ppc64', '6.12', 1],
    ['x86_64', '6.12', 0],
  ] as const)('are whole on the emulated %s of %s', async (arch, release, count) => {
    using kvm = Kvm.open({ backend: 'emulated', arch, release });
    const copied = await copies(kvm, noProgress);
    expect(copied.map(({ wrong }) => wrong)).toEqual(Array.from({ length: count }, () => []));
    expect(copiesTable(copied).map(({ failed }) => failed)).toEqual(Array.from({ length: count }, () => false));
  });

  it('say what is wrong when something is lost', async () => {
    const calls = new EmulatedKernel({ arch: 's390x' });
    const s390x = calls.s390x!;
    const set = s390x.setSkeys.bind(s390x);
    let count = 0;
    // What the copy sets is lost; four calls before it set the source's keys.
    const setSkeys: typeof set = (vm, gfn, frames, flags, keys) =>
      set(vm, gfn, frames, flags, ++count > 4 ? new Uint8Array(Number(frames)) : keys);
    using kvm = Kvm.open({ calls: Object.assign(calls, { s390x: { ...s390x, setSkeys } }) });
    const [keys, cmma] = copiesTable(await copies(kvm, noProgress));
    expect(keys).toMatchObject({ failed: true, text: expect.stringContaining('keys, the first that differs: 0') });
    expect(cmma).toEqual({ failed: false, text: 'copied, CMMA values: all of it' });
  });
});
