import { expect, it } from 'vitest';
import { isNarrow, S390X_REG_NAMES } from '../../../../../lib/arch/s390x/model/registers.ts';

it('the prefix and the access registers have 32 bits, all others 64', () => {
  expect(S390X_REG_NAMES).toHaveLength(3 + 3 * 16);
  const access = Array.from({ length: 16 }, (_, n) => `a${n}`);
  expect(S390X_REG_NAMES.filter(isNarrow)).toEqual(['prefix', ...access]);
});
