import { expect, it } from 'vitest';
import { x86_64MemslotRules } from '../../../../lib/arch/x86_64/rules.ts';
import { answer } from '../../rules/answer.ts';
import { memslotContext } from '../../rules/memslot-context.ts';

it('a memslot ends where the MMU’s reach ends', () => {
  const rules = x86_64MemslotRules(0x103);
  expect(answer(rules, memslotContext({}))).toBe(undefined);
  const beyond = { request: { gpa: 0x10_1000n } };
  const why = 'EINVAL: [0x101000, 0x105000) reaches beyond the highest guest physical address, 0x103fff';
  expect(answer(rules, memslotContext(beyond))).toBe(why);
  expect(answer(rules, memslotContext({ ...beyond, existing: {} }))).toBe(why);
  expect(answer(rules, memslotContext({ ...beyond, existing: { baseGfn: 0x101 } }))).toBe(undefined);
});
