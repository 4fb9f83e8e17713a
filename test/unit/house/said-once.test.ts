import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { CALL_GROUPS, signaturesOf } from '../../../lib/calls/signatures.ts';

const LIB = fileURLToPath(new URL('../../../lib', import.meta.url));
const files = readdirSync(LIB, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

/** Code without its comments, line by line. */
const linesOf = (file: string): string[] =>
  readFileSync(join(LIB, file), 'utf8')
    .split('\n')
    .filter((line) => !/^\s*(\/?\*|\/\/)/.test(line));

it.each([
  ['whether a number is an integer', /Number\.is(Safe)?Integer\(/, 'base/arguments.ts'],
  ['that something is closed', / is closed['`]/, 'calls/failure.ts'],
  ["an ioctl's name as errors have it", /ioctl\(KVM_/, 'calls/signatures.ts'],
  ['how a slot word is made', /asId(, 'asId'\))? <</i, 'uapi/slot-word.ts'],
])('%s is said in one file', (_what, pattern, home) => {
  const saying = files.filter((file) => linesOf(file).some((line) => pattern.test(line)));
  expect(saying).toEqual([home]);
});

it("no error says a system call's name but by the call: callError, not KvmError", () => {
  const signatures = [undefined, ...CALL_GROUPS].flatMap((group) => Object.values(signaturesOf(group)));
  const names = new Set(signatures.map(({ syscall }) => syscall));
  expect(names.size).toBeGreaterThan(70);
  const saying = files.flatMap((file) =>
    [
      ...linesOf(file)
        .join('\n')
        .matchAll(/\bsyscall: '([^']+)'/g),
    ].map(([, name]) => ({ file, name: name! })),
  );
  expect(saying.length).toBeGreaterThan(20);
  expect(saying.filter(({ name }) => names.has(name))).toEqual([]);
});
