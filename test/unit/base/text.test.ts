import { describe, expect, it } from 'vitest';
import { table, wrap } from '../../../lib/base/text.ts';

describe('wrap', () => {
  it('breaks at spaces only', () => {
    expect(wrap('one two three four', 9)).toEqual(['one two', 'three', 'four']);
    expect(wrap('one two', 7)).toEqual(['one two']);
    expect(wrap('a /very/long/path b', 5)).toEqual(['a', '/very/long/path', 'b']);
    expect(wrap('  ', 5)).toEqual([]);
  });
});

describe('table', () => {
  const rows = [
    ['1', 'anonymous memory behind it', '0x123456789abc'],
    ['2', 'short', '0x1'],
  ];

  it('has a line for each row where there is room', () => {
    expect(table(['n', 'what', 'hva'], rows)).toBe(
      '  n  what                        hva\n  1  anonymous memory behind it  0x123456789abc\n  2  short                       0x1',
    );
  });

  it('folds the widest cells between words on a narrow screen, and never a word', () => {
    expect(table(['n', 'what', 'hva'], rows, 34)).toBe(
      [
        '  n  what           hva',
        '  1  anonymous      0x123456789abc',
        '     memory behind',
        '     it',
        '  2  short          0x1',
      ].join('\n'),
    );
    const narrowest = table(['n', 'what', 'hva'], rows, 1).split('\n');
    expect(narrowest.join(' ')).toContain('0x123456789abc');
    expect(narrowest[1]).toBe('  1  anonymous  0x123456789abc');
  });
});
