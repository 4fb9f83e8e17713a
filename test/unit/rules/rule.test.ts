import { expect, it } from 'vitest';
import { explain, firstBroken, type Rule, refusal } from '../../../lib/rules/rule.ts';

const RULES: readonly Rule<number>[] = [
  { errno: 'EINVAL', broken: (n) => n < 0, why: (n) => `${n} is negative` },
  { errno: 'E2BIG', broken: (n) => n > 9 || n < -9, why: (n) => `${n} is more than 9` },
];

it('the first rule that is broken answers', () => {
  expect([firstBroken(RULES, -10), firstBroken(RULES, 10), firstBroken(RULES, 9)]).toEqual([
    RULES[0],
    RULES[1],
    undefined,
  ]);
  expect([refusal(RULES, -10), refusal(RULES, 10), refusal(RULES, 0)]).toEqual([-22, -7, 0]);
});

it('explains what the kernel answered, by either sign, and nothing that the kernel didn’t', () => {
  expect([explain(RULES, -1, -22), explain(RULES, -1, 22)]).toEqual(['-1 is negative', '-1 is negative']);
  expect([explain(RULES, 10, -22), explain(RULES, 0, -22)]).toEqual([undefined, undefined]);
});
