import { expect, it } from 'vitest';
import { loadNative } from '../../lib/backends/native.ts';
import { addonHtabLoops, fuzzHtabStreams } from '../fuzz/htab-fuzz.ts';

// `npm run fuzz -- --htab-streams 1000000` is the same at length.
it('random streams do to a table what the oracle says, in the codec, with the addon and in the emulated kernel', () => {
  const { kinds, problems, errnos } = fuzzHtabStreams({
    seed: 1,
    streams: 1000,
    addon: addonHtabLoops(loadNative()),
  });
  for (const [, { made, written }] of kinds) {
    expect(made).toBeGreaterThan(80);
    expect(written).toBeGreaterThan(15);
  }
  for (const kind of ['valid', 'overlapping']) expect(kinds.get(kind)!.decoded).toBe(kinds.get(kind)!.made);
  expect([...problems.keys()].sort()).toEqual([
    'index',
    'not-valid',
    'page-size',
    'segment-size',
    'truncated-entries',
    'truncated-header',
  ]);
  expect([...errnos.keys()].sort((a, b) => a - b)).toEqual([5, 14, 22]);
}, 600_000);
