import type { Arguments } from '../attack.ts';

/** A function of the package's, and arguments that it takes. */
export type Attacked = readonly [call: (...args: never[]) => unknown, args: () => Arguments];

/** By the name under which it is told: `translate`, `new Htab`, `Htab.set` of an instance, `Kvm.open` of the class. */
export type Functions = Readonly<Record<string, Attacked>>;

export const bytes = (length: number): Uint8Array => new Uint8Array(length);

/** Methods and setters of instances that are made anew for every call. */
export function methodsOf<T extends object>(
  title: string,
  make: () => T,
  args: { readonly [Name in Exclude<keyof T, 'toString'>]?: () => Arguments },
): Functions {
  const methods: Record<string, Attacked> = {};
  for (const [name, good] of Object.entries(args) as [keyof T & string, () => Arguments][]) {
    methods[`${title}.${name}`] = [(...given) => (make()[name] as (...args: never[]) => unknown)(...given), good];
  }
  return methods;
}
