import { type Face, membersOf, targetsOf } from './surface.ts';
import { FEW_WRONG_VALUES, NO_NUMBERS, WRONG_VALUES } from './wrong-values.ts';

/** The arguments of a call that is right, in their order and by their names. */
export type Arguments = Readonly<Record<string, unknown>>;

/** A function of a world, with arguments that it takes. */
export interface Target<World> {
  readonly name: string;
  readonly call: (world: World, args: readonly unknown[]) => unknown;
  readonly args: (world: World) => Arguments;
  /** What else an error may name that comes of a wrong value of an argument. */
  readonly related: Readonly<Record<string, readonly string[]>>;
}

/** Something in which calls are made, and which must be none the worse for those that fail. */
export interface Arena<World> {
  make(): World | Promise<World>;
  close(world: World): void;
  /** What a call that throws must leave as it is. */
  state(world: World): unknown;
  /** Throws unless the world is consistent; and, if it must, still works. */
  verify(world: World, works: boolean): void;
  /** What is held although everything is closed. */
  leftOf(world: World): string | undefined;
  /** What a getter of an argument can take away. */
  readonly sabotage: Readonly<Record<string, (world: World) => void>>;
  /** How long a call's promise is waited for, in milliseconds. */
  readonly patience: number;
}

/** The same when everything was closed before the call: it may be refused, or do nothing, and must not break. */
export function closedArena<World>(arena: Arena<World>): Arena<World> {
  return {
    ...arena,
    make: async () => {
      const world = await arena.make();
      arena.close(world);
      return world;
    },
    state: (world) => arena.leftOf(world) ?? 'nothing is held',
    verify: () => {},
    sabotage: {},
  };
}

/** A call with one thing wrong. */
interface Attempt<World> {
  readonly what: string;
  /** Name of the argument, or of its property, that is wrong. */
  readonly wrong: string;
  readonly args: (world: World) => readonly unknown[];
  /** What else may be named: the properties of what should have been given. */
  readonly parts?: readonly string[];
  /** No argument is a symbol, so that it is of the wrong type, whatever else is asked of it. */
  readonly isSymbol: boolean;
  /** Arguments are missing, which may be told first. */
  readonly leavesOut?: true;
  /** Taking something away is allowed to change what is there. */
  readonly sabotages?: true;
}

class OfGetter extends Error {}

const FRAMES_SHOWN = 2;

/** A world for one call after the other, as long as they leave it as it was made. */
class Worlds<World> {
  readonly #arena: Arena<World>;
  #world: World | undefined;
  /** The state of every one, when it is made. */
  before: string | undefined;

  constructor(arena: Arena<World>) {
    this.#arena = arena;
  }

  async get(): Promise<World> {
    if (this.#world === undefined) {
      this.#world = await this.#arena.make();
      this.before = JSON.stringify(this.#arena.state(this.#world));
    }
    return this.#world;
  }

  close(): void {
    if (this.#world !== undefined) this.#arena.close(this.#world);
    this.#world = undefined;
  }
}

/** What went otherwise than it must, a line for each. */
export async function attack<World>(
  arena: Arena<World>,
  target: Target<World>,
  worlds = new Worlds(arena),
): Promise<Result> {
  const faults: string[] = [];
  let tried = 0;
  let world = await worlds.get();
  const good = await outcomeOf(arena, target.call, world, Object.values(target.args(world)));
  if (good.thrown && !isRefusal(good.error)) faults.push(`${target.name} with what is right: ${String(good.error)}`);
  dispose(good.result);
  if (!good.thrown || stateOf(arena, world) !== worlds.before) worlds.close();
  world = await worlds.get();
  let isNew = true;
  for (const attempt of attemptsOf(target.args(world), arena, target.args)) {
    tried++;
    const { thrown, error, result } = await outcomeOf(arena, target.call, world, attempt.args(world));
    const say = (what: string): number => faults.push(`${target.name}, ${attempt.what}: ${what}`);
    const misnames = thrown ? faultOfAttempt(error, attempt, target) : undefined;
    if (misnames !== undefined) say(misnames);
    const mayChange = !thrown || attempt.sabotages === true;
    dispose(result);
    const after = stateOf(arena, world);
    const same = after === worlds.before;
    isNew &&= thrown;
    if (!mayChange && !same) say(`threw ${String(error)}, and what was\n    ${worlds.before}\n  is\n    ${after}`);
    const why = broken(arena, world, attempt.sabotages === undefined);
    if (why !== undefined) say(`afterwards ${why}`);
    if (why === undefined && same) continue;
    worlds.close();
    isNew = true;
    const left = mayChange ? arena.leftOf(world) : undefined;
    if (left !== undefined) say(`when everything is closed, ${left}`);
    world = await worlds.get();
  }
  // What a call did that is no part of the state may be of concern to the next method.
  if (!isNew) worlds.close();
  return { faults, tried };
}

/**
 * Errors that don't name what is wrong, of a few wrong values: quickly, and nothing else is looked at.
 * @param refuses whether what no argument can be must be refused, too
 */
export async function misnamed<World>(
  arena: Arena<World>,
  targets: readonly Target<World>[],
  refuses: boolean,
): Promise<Result> {
  const faults: string[] = [];
  let tried = 0;
  let world = await arena.make();
  const before = stateOf(arena, world);
  for (const target of targets) {
    for (const attempt of attemptsOf(target.args(world), { ...arena, sabotage: {} }, target.args, FEW_WRONG_VALUES)) {
      tried++;
      const { thrown, error, result } = await outcomeOf(arena, target.call, world, attempt.args(world));
      const why = thrown
        ? faultOfAttempt(error, attempt, target)
        : refuses && attempt.isSymbol
          ? 'it is taken'
          : undefined;
      if (why !== undefined) faults.push(`${target.name}, ${attempt.what}: ${why}`);
      if (thrown || (!isHeld(result) && stateOf(arena, world) === before)) continue;
      dispose(result);
      arena.close(world);
      world = await arena.make();
    }
  }
  arena.close(world);
  return { faults, tried };
}

/** Arguments of which each property has a name of its own, and most may be left out. */
const OF_OPTIONS = ['options', 'budget', 'config', 'facilities', 'fields', 'init', 'key', 'region', 'state'];

/** Functions that take options which there aren't, as one is that is misspelt. */
export async function withMisspeltOptions<World>(
  arena: Arena<World>,
  targets: readonly Target<World>[],
): Promise<Result> {
  const faults: string[] = [];
  let tried = 0;
  for (const { name, call, args } of targets) {
    const world = await arena.make();
    const right = args(world);
    for (const bag of OF_OPTIONS.filter((each) => isPlain(right[each]))) {
      tried++;
      const wrong = { ...right, [bag]: { ...(right[bag] as object), misspelt: 1 } };
      const { error, result } = await outcomeOf(arena, call, world, Object.values(wrong));
      dispose(result);
      if (!String(error).startsWith(`TypeError: The property "${bag}.misspelt" is unknown. It must be one of `))
        faults.push(`${name}: ${error ?? 'it is taken'}`);
      else if ((error as { code?: unknown }).code !== 'ERR_INVALID_ARG_VALUE') faults.push(`${name} has no code`);
    }
    arena.close(world);
  }
  return { faults, tried };
}

export interface Result {
  readonly faults: readonly string[];
  readonly tried: number;
}

/** Names of the classes that faces attack, and of what functions do: those of which one or the other is missing. */
export function notAttacked<World>(
  world: World,
  faces: Readonly<Record<string, Face<World>>>,
  functions: readonly string[],
  exported: Readonly<Record<string, unknown>>,
): string[] {
  const faced = new Set<unknown>(Object.values(faces).map((face) => face.of(world).constructor));
  return Object.entries(exported).flatMap(([name, value]) => {
    if (typeof value !== 'function') return [];
    const statics = Object.entries(Object.getOwnPropertyDescriptors(value))
      .filter(([, { value: member }]) => typeof member === 'function')
      .map(([member]) => `${name}.${member}`)
      .filter((member) => !functions.includes(member));
    const isThere = faced.has(value) || functions.some((one) => one === name || one === `new ${name}`);
    return isThere ? statics : [name, ...statics];
  });
}

/** The same for all methods of a face, of which none may be missing. */
export async function attackFace<World>(arena: Arena<World>, title: string, face: Face<World>): Promise<Result> {
  const world = await arena.make();
  const missing = membersOf(face.of(world)).filter((name) => !(name in face.methods));
  arena.close(world);
  const faults = missing.map((name) => `${title}.${name} is not in its face`);
  let tried = 0;
  const worlds = new Worlds(arena);
  for (const target of targetsOf(title, face)) {
    const result = await attack(arena, target, worlds);
    faults.push(...result.faults);
    tried += result.tried;
  }
  worlds.close();
  return { faults, tried };
}

function* attemptsOf<World>(
  example: Arguments,
  arena: Arena<World>,
  argsOf: (world: World) => Arguments,
  values = WRONG_VALUES,
): Generator<Attempt<World>> {
  for (const [position, name] of Object.keys(example).entries()) {
    const exchanged = (make: (good: unknown, world: World) => unknown) => (world: World) =>
      Object.values(argsOf(world)).map((good, index) => (index === position ? make(good, world) : good));
    const good = example[name];
    for (const [title, value] of values) {
      const parts = isPlain(good) && typeof value === 'object' && value !== null ? Object.keys(good) : [];
      yield { what: `${name} = ${title}`, wrong: name, isSymbol: isSymbol(value), parts, args: exchanged(() => value) };
    }
    // What is left out may be made of what is wrong; the error names what was given, unless the rest is needed.
    if (typeof good === 'number' || typeof good === 'bigint') {
      for (const [title, value] of position + 1 < Object.keys(example).length ? NO_NUMBERS : []) {
        const whole = exchanged(() => value);
        const cut = (world: World): readonly unknown[] => whole(world).slice(0, position + 1);
        yield {
          what: `${name} = ${title} and nothing behind it`,
          wrong: name,
          isSymbol: false,
          leavesOut: true,
          args: cut,
        };
      }
    }
    if (Array.isArray(good)) {
      for (const [title, value] of values)
        yield {
          what: `${name}[0] = ${title}`,
          wrong: name,
          isSymbol: isSymbol(value),
          args: exchanged((right) => [value, ...(right as unknown[]).slice(1)]),
        };
    }
    if (!isPlain(good)) continue;
    for (const key of Object.keys(good)) {
      for (const [title, value] of values) {
        const changed = exchanged((right) => ({ ...(right as object), [key]: value }));
        yield { what: `${name}.${key} = ${title}`, wrong: key, isSymbol: isSymbol(value), args: changed };
      }
      const getter = (get: (world: World) => void) =>
        exchanged((right, world) =>
          Object.defineProperty({ ...(right as object) }, key, {
            get: () => {
              get(world);
              return (right as Record<string, unknown>)[key];
            },
          }),
        );
      const throws = getter(() => {
        throw new OfGetter('thrown by a getter');
      });
      yield { what: `${name}.${key} throws`, wrong: key, isSymbol: false, args: throws };
      for (const [title, take] of Object.entries(arena.sabotage)) {
        yield {
          what: `a getter of ${name}.${key} ${title}`,
          wrong: key,
          isSymbol: false,
          args: getter(take),
          sabotages: true,
        };
      }
    }
  }
}

const isSymbol = (value: unknown): boolean => typeof value === 'symbol';

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

interface Outcome {
  readonly thrown: boolean;
  readonly error?: unknown;
  readonly result?: unknown;
}

async function outcomeOf<World>(
  { patience }: Arena<World>,
  call: Target<World>['call'],
  world: World,
  args: readonly unknown[],
): Promise<Outcome> {
  const { stackTraceLimit } = Error;
  // Of a hundred thousand errors a few are shown.
  Error.stackTraceLimit = FRAMES_SHOWN;
  try {
    return { thrown: false, result: await consume(call(world, args), patience) };
  } catch (error) {
    return { thrown: true, error };
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** What a promise gives, unless that takes long. */
async function settled(promised: unknown, patience: number): Promise<unknown> {
  if (!(promised instanceof Promise)) return promised;
  let timer: NodeJS.Timeout | undefined;
  const long = new Promise((resolve) => {
    timer = setTimeout(resolve, patience);
  });
  return await Promise.race([promised, long]).finally(() => clearTimeout(timer));
}

/** Lets what was returned do what it does when it is used. */
async function consume(result: unknown, patience: number): Promise<unknown> {
  const value = await settled(result, patience);
  if (typeof value !== 'object' || value === null) return value;
  const steps = value as {
    next?: () => unknown;
    return?: (value?: unknown) => unknown;
    destroy?: () => void;
    on?: (name: string, listener: (error: unknown) => void) => void;
  };
  if (typeof steps.on === 'function' && typeof steps.destroy === 'function') {
    steps.on('error', () => {});
    steps.destroy();
    return value;
  }
  if (typeof steps.next !== 'function') return value;
  for (let i = 0; i < 3; i++) await settled(steps.next(), patience);
  await steps.return?.();
  return value;
}

/** Something was given that is to be closed. */
const isHeld = (value: unknown): value is Disposable =>
  typeof value === 'object' && value !== null && Symbol.dispose in value;

/** Closes what was given, alone or beside figures of it: the collector would some time. */
function dispose(value: unknown): void {
  for (const each of isPlain(value) ? Object.values(value) : [value]) {
    if (isHeld(each)) each[Symbol.dispose]();
  }
}

/** Undefined when it can't be told: what it reads from is gone. */
function stateOf<World>(arena: Arena<World>, world: World): string | undefined {
  try {
    return JSON.stringify(arena.state(world));
  } catch {
    return undefined;
  }
}

const isOfMissing = (error: unknown): boolean => error instanceof Error && error.message.endsWith('Received undefined');

function faultOfAttempt<World>(
  error: unknown,
  attempt: Attempt<World>,
  { related }: Target<World>,
): string | undefined {
  if (attempt.leavesOut === true && isOfMissing(error)) return undefined;
  const { code } = error as { readonly code?: unknown };
  // Of what is one of a few values, others are out of range, whatever they are.
  if (attempt.isSymbol && code === 'ERR_OUT_OF_RANGE' && !/must be (one of|.* or )/.test(String(error)))
    return `what is of no right type is told to be out of range: ${error}`;
  return faultOf(error, [attempt.wrong, ...(attempt.parts ?? []), ...(related[attempt.wrong] ?? [])]);
}

/** What is wrong with an error; undefined when it says what it must. */
function faultOf(error: unknown, names: readonly string[]): string | undefined {
  if (error instanceof OfGetter) return undefined;
  if (!(error instanceof Error)) return `threw ${String(error)}`;
  const { code, name, message } = error as Error & { readonly code?: unknown };
  // It was taken for the function that it is, and called.
  if (message.startsWith('Class constructor Some ')) return undefined;
  // A list was given that cannot be gone through: what its own iterator says.
  if (message.startsWith('Cannot perform %TypedArray%.prototype.values')) return undefined;
  if (name === 'ProgramInterruption' && typeof code === 'number') return undefined;
  if (typeof code !== 'string')
    return `${error.stack
      ?.split('\n')
      .slice(0, 1 + FRAMES_SHOWN)
      .join(' ')}`;
  if (code === 'ERR_INVALID_ARG_TYPE' || code === 'ERR_OUT_OF_RANGE') {
    const named = new RegExp(`"(?:\\w+\\.)*(?:\\w+\\[)?(?:${names.join('|')})(?:[.[\\]][^"]*)?"`).test(message);
    return named ? undefined : `the message does not name ${names[0]}: ${message}`;
  }
  if (/^ERR_[A-Z_]+$/.test(code)) return undefined;
  return isRefusal(error) ? undefined : `${code} without errno or syscall: ${message}`;
}

/** Of the kernel: a right call that this kernel, or its state, does not allow. */
function isRefusal(error: unknown): boolean {
  const { errno, syscall } = error as Record<'errno' | 'syscall', unknown>;
  return typeof errno === 'number' && typeof syscall === 'string';
}

function broken<World>(arena: Arena<World>, world: World, works: boolean): string | undefined {
  try {
    arena.verify(world, works);
    return undefined;
  } catch (error) {
    return `it does not work: ${String(error)}`;
  }
}
