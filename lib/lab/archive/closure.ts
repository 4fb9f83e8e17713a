import { isVersionWanted, type Relation } from './relations.ts';
import type { ListedPackage, PackageFile, SuiteIndex } from './suite-index.ts';

/** What is wanted of the archive. */
export interface Wish {
  /** Each of them is needed, and of each, the first alternative that can be had. */
  readonly roots: readonly (readonly Relation[])[];
  /** Whether a package that another one depends on is wanted, too. Default: all are. */
  readonly follows?: (name: string) => boolean;
}

/** A whole set, or the files for want of which there is none, and the names that no index lists. */
export type Resolution =
  | { readonly packages: readonly ListedPackage[] }
  | { readonly missing: readonly PackageFile[]; readonly unlisted: readonly string[] };

/** More steps than any set takes that fits together at all. */
const MOST_STEPS = 20_000;

/**
 * A set of packages that has what is wished and everything that this depends on, of the first suites as far as possible.
 *
 * @param suites in order of preference
 * @param isMissing whether a package's file is known not to be in the archive
 */
export function resolveClosure(
  wish: Wish,
  suites: readonly SuiteIndex[],
  isMissing: (file: PackageFile) => boolean,
): Resolution {
  return new Resolver(wish, suites, isMissing).resolve();
}

class Resolver {
  private readonly wish: Wish;
  private readonly suites: readonly SuiteIndex[];
  private readonly isMissing: (file: PackageFile) => boolean;
  private readonly offers = new Map<string, readonly Offer[]>();
  private readonly hopeless = new Set<string>();
  private readonly missing = new Map<string, PackageFile>();
  private steps = 0;

  constructor(wish: Wish, suites: readonly SuiteIndex[], isMissing: (file: PackageFile) => boolean) {
    this.wish = wish;
    this.suites = suites;
    this.isMissing = isMissing;
  }

  resolve(): Resolution {
    const reached = this.reachable();
    this.markHopeless(reached);
    const chosen = this.choose(this.wish.roots, new Map());
    if (chosen !== undefined) {
      return { packages: [...chosen.values()].sort((a, b) => (a.name < b.name ? -1 : 1)) };
    }
    const names = [...this.offers].filter(([, offers]) => offers.length === 0).map(([name]) => name);
    const listed = new Set([...this.missing.values()].map(({ name }) => name));
    return { missing: [...this.missing.values()], unlisted: names.filter((name) => !listed.has(name)) };
  }

  /** Every package that could be in the set. */
  private reachable(): ListedPackage[] {
    const reached = new Map<string, ListedPackage>();
    const pending = [...this.wish.roots];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      for (const each of next.flatMap((relation) => this.candidates(relation))) {
        if (reached.has(idOf(each))) continue;
        reached.set(idOf(each), each);
        pending.push(...this.needsOf(each));
      }
    }
    return [...reached.values()];
  }

  /** Marks what cannot be in any set, so that the search does not try it in each of its branches. */
  private markHopeless(reached: readonly ListedPackage[]): void {
    const isLost = (each: ListedPackage) =>
      this.needsOf(each).some((needed) => needed.every((relation) => this.candidates(relation).length === 0));
    for (let found = true; found; ) {
      const lost = reached.filter((each) => !this.hopeless.has(idOf(each)) && isLost(each));
      for (const each of lost) this.hopeless.add(idOf(each));
      found = lost.length > 0;
    }
  }

  private choose(
    pending: readonly (readonly Relation[])[],
    chosen: ReadonlyMap<string, ListedPackage>,
  ): ReadonlyMap<string, ListedPackage> | undefined {
    const [next, ...rest] = pending;
    if (next === undefined) return chosen;
    if (++this.steps > MOST_STEPS) return undefined;
    if ([...chosen.values()].some((each) => next.some((relation) => satisfies(each, relation)))) {
      return this.choose(rest, chosen);
    }
    for (const each of next.flatMap((relation) => this.candidates(relation))) {
      if (chosen.has(each.name)) continue; // In a version that is not wanted here.
      const whole = this.choose([...rest, ...this.needsOf(each)], new Map([...chosen, [each.name, each]]));
      if (whole !== undefined) return whole;
    }
    return undefined;
  }

  /** What there is for a relation: the first suite's newest package first, real packages before those that provide the name. */
  private candidates(relation: Relation): ListedPackage[] {
    return this.offersOf(relation.name)
      .filter(({ item, version }) => isVersionWanted(relation, version) && !this.hopeless.has(idOf(item)))
      .map(({ item }) => item);
  }

  private offersOf(name: string): readonly Offer[] {
    const known = this.offers.get(name);
    if (known !== undefined) return known;
    const real = this.suites.flatMap((suite) => suite.find(name).map((item) => ({ item, version: item.version })));
    const provided = this.suites.flatMap((suite) =>
      suite.providersOf(name).map((item) => ({ item, version: providedVersion(item, name) })),
    );
    const offers = [...real, ...provided].filter(({ item }) => {
      if (this.isMissing(item)) this.missing.set(idOf(item), item);
      return !this.isMissing(item);
    });
    this.offers.set(name, offers);
    return offers;
  }

  private needsOf({ depends }: ListedPackage): readonly (readonly Relation[])[] {
    const { follows } = this.wish;
    return follows === undefined ? depends : depends.filter((needed) => needed.some(({ name }) => follows(name)));
  }
}

/** A package for a name: its own, with its own version, or one that it provides. */
interface Offer {
  readonly item: ListedPackage;
  readonly version: string | undefined;
}

function idOf({ name, version, suite }: PackageFile): string {
  return `${name}=${version}/${suite}`;
}

function providedVersion({ provides }: ListedPackage, name: string): string | undefined {
  return provides.find((each) => each.name === name)?.version;
}

function satisfies(item: ListedPackage, relation: Relation): boolean {
  if (item.name === relation.name) return isVersionWanted(relation, item.version);
  return item.provides.some(({ name, version }) => name === relation.name && isVersionWanted(relation, version));
}
