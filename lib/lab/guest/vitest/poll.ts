import { setTimeout as sleep } from 'node:timers/promises';

/** Vitest's own is a second, in which an emulated, interpreting machine gets nowhere. */
const TIMEOUT_MS = 60_000;
const INTERVAL_MS = 50;

interface PollOptions {
  readonly interval?: number;
  readonly timeout?: number;
  readonly message?: string;
}

type Assertion = Readonly<Record<PropertyKey, unknown>>;
type Matcher = (...args: unknown[]) => unknown;

/** Vitest's `expect.poll`: what is expected of a value is so of what a function returns in the end. */
export function pollWith(expect: (value: unknown, message?: string) => object) {
  return (
    value: () => unknown,
    { interval = INTERVAL_MS, timeout = TIMEOUT_MS, message }: PollOptions = {},
  ): Assertion => {
    async function holds(path: readonly PropertyKey[], args: unknown[], called: Error): Promise<void> {
      const end = Date.now() + timeout;
      for (;;) {
        const isLast = Date.now() >= end;
        try {
          const assertion = expect(await value(), message) as Assertion;
          const of = path.slice(0, -1).reduce((at, key) => at[key] as Assertion, assertion);
          await (of[path.at(-1)!] as Matcher).apply(of, args);
          return;
        } catch (error) {
          if (isLast) throw at(error, called);
        }
        await sleep(interval);
      }
    }
    const chain = (path: readonly PropertyKey[]): Assertion =>
      new Proxy((() => undefined) as unknown as Assertion, {
        // By itself it is nothing to wait for.
        get: (_, key) => (key === 'then' ? undefined : chain([...path, key])),
        apply: (_, __, args: unknown[]) => holds(path, args, new Error()),
      });
    return chain([]);
  };
}

/** The error as of where it was expected, and not of a turn of the loop. */
function at(error: unknown, { stack = '' }: Error): unknown {
  if (error instanceof Error) error.stack = `${error.name}: ${error.message}${stack.replace(/^Error/, '')}`;
  return error;
}
