import { describe, expect, it } from 'vitest';
import { show } from '../../../lib/cli/repl/print.ts';
import { objectsOf } from '../docs/objects.ts';

describe.each(['x86_64', 's390x', 'ppc64'] as const)('objects of %s at the prompt', (arch) => {
  it.each(objectsOf(arch).map((object) => [object.constructor.name, object] as const))('%s', (_, object) => {
    const text = show(object);
    expect(text).not.toMatch(/\[Function|\[Getter|Symbol\(|Object \[|ArrayBuffer|Uint8Contents|#\w/);
    expect(text.split('\n').length).toBeLessThanOrEqual(12);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(120);
  });
});

it('what comes later is not said to be an object', () => {
  async function* later() {
    yield 1;
  }
  expect(show(later())).toContain('for await');
  expect(show(Promise.resolve(1))).toContain('await');
});

it("a class of the user's own is Node's to show, unless there is nothing but methods", () => {
  class Counter {
    count = 1;
    add(): void {}
  }
  class Idle {
    add(): void {}
  }
  expect(show(new Counter())).toBe('Counter { count: 1 }');
  expect(show(new Idle())).toBe('Idle: add');
});
