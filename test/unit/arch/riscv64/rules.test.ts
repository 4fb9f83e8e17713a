import { expect, it } from 'vitest';
import { riscv64MemslotRules } from '../../../../lib/arch/riscv64/rules.ts';
import { MEM } from '../../../../lib/uapi/flags.ts';
import { answer } from '../../rules/answer.ts';
import { memslotContext } from '../../rules/memslot-context.ts';

const rules = riscv64MemslotRules(21);
const fine = { hasUnwritable: () => false };

it('a memslot ends before the last page of guest physical addresses', () => {
  const at = (gpa: bigint) => ({ ...memslotContext({ request: { gpa } }), ...fine });
  expect(answer(rules, at(0x1f_b000n))).toBe(undefined);
  expect(answer(rules, at(0x1f_c000n))).toBe(
    'EFAULT: [0x1fc000, 0x200000) does not end below 0x200000, where guest physical addresses end',
  );
});

it('memory that the process may not write takes a READONLY slot', () => {
  const why =
    'EPERM: [0x70000000, 0x70004000) has memory of the process that it may not write: make the slot READONLY, or the mapping writable first';
  const asked: [bigint, bigint][] = [];
  const hasUnwritable = (hva: bigint, size: bigint): boolean => asked.push([hva, size]) > 0;
  expect(answer(rules, { ...memslotContext({}), hasUnwritable })).toBe(why);
  expect(asked).toEqual([[0x7000_0000n, 0x4000n]]);
  // Nobody can tell: the kernel has refused.
  expect(answer(rules, memslotContext({}))).toBe(why);
  expect(answer(rules, { ...memslotContext({}), ...fine })).toBe(undefined);
  expect(answer(rules, memslotContext({ request: { flags: MEM.READONLY } }))).toBe(undefined);
});

it('other flags are looked at too, what changes nothing or goes is not', () => {
  const flags = memslotContext({ request: { flags: MEM.LOG_DIRTY_PAGES }, existing: {} });
  expect(answer(rules, flags)).toMatch(/^EPERM/);
  expect(answer(rules, memslotContext({ existing: {} }))).toBe(undefined);
  expect(answer(rules, memslotContext({ request: { size: 0n }, existing: {} }))).toBe(undefined);
});
