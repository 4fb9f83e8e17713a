import type { Arguments, Target } from './attack.ts';

/** Two arrays that must be as long are told by the second; an array that is too short is told by what does not fit into it, an end beyond 2^53 by the size. */
const RELATED = {
  into: ['lengths', 'length'],
  from: ['lengths'],
  gpa: ['size'],
  address: ['size'],
  expected: ['replacement'],
};

/** Of one class: an instance in a world, and arguments of its methods. `null`: the method takes none. */
export interface Face<World> {
  readonly of: (world: World) => object;
  readonly methods: Readonly<Record<string, ((world: World) => Arguments) | null>>;
}

type Method = (this: unknown, ...args: unknown[]) => unknown;

/** What is in a face's prototypes and takes arguments: methods, and setters. */
export function membersOf(instance: object): string[] {
  const members = new Set<string>();
  for (let at = Object.getPrototypeOf(instance); at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const [name, { value, set }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (name !== 'constructor' && (typeof value === 'function' || set !== undefined)) members.add(name);
    }
  }
  return [...members];
}

export function targetsOf<World>(title: string, face: Face<World>): Target<World>[] {
  return Object.entries(face.methods).flatMap(([name, args]) =>
    args === null
      ? []
      : [
          {
            name: `${title}.${name}`,
            args,
            related: RELATED,
            call: (world, given) => invoke(face.of(world), name, given),
          },
        ],
  );
}

function invoke(instance: object, name: string, args: readonly unknown[]): unknown {
  for (let at = instance; at !== null; at = Object.getPrototypeOf(at)) {
    const member = Object.getOwnPropertyDescriptor(at, name);
    if (member?.set !== undefined) return Reflect.set(instance, name, args[0]);
    if (member !== undefined) return Reflect.apply(member.value as Method, instance, args);
  }
  throw new Error(`there is no ${name}`);
}
