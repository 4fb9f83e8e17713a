import { isExact } from '../../base/arguments.ts';
import { parseRelations, type Relation } from './relations.ts';
import { compareVersions } from './version.ts';

/** A package's file as a signed index, or the lock, describes it. */
export interface PackageFile {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** The suite whose index describes it. */
  readonly suite: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Paths within an archive at which it may lie, the most likely first. */
  readonly paths: readonly string[];
}

/** A package with what it needs, and what else it stands for. */
export interface ListedPackage extends PackageFile {
  readonly depends: readonly (readonly Relation[])[];
  readonly provides: readonly Relation[];
}

/** The packages of a suite for one architecture, from the text of its `Packages` index. */
export class SuiteIndex {
  readonly suite: string;
  private readonly stanzas = new Map<string, string[]>();
  private readonly providers = new Map<string, Set<string>>();
  private readonly described = new Map<string, readonly ListedPackage[]>();

  constructor(suite: string, text: string) {
    this.suite = suite;
    for (const stanza of text.split(/\n\n+/)) this.add(stanza);
  }

  /** Every version of a package that is listed, the newest first; the same objects each time. */
  find(name: string): readonly ListedPackage[] {
    const known = this.described.get(name);
    if (known !== undefined) return known;
    const found = (this.stanzas.get(name) ?? [])
      .flatMap((stanza) => describe(stanza, this.suite) ?? [])
      .sort((a, b) => compareVersions(b.version, a.version));
    this.described.set(name, found);
    return found;
  }

  /** The packages that provide a name. */
  providersOf(name: string): ListedPackage[] {
    const names = [...(this.providers.get(name) ?? [])];
    return names
      .flatMap((each) => this.find(each))
      .filter(({ provides }) => provides.some((each) => each.name === name));
  }

  /** The names of all packages. */
  names(): Iterable<string> {
    return this.stanzas.keys();
  }

  private add(stanza: string): void {
    const name = fieldOf(stanza, 'Package');
    if (name === undefined) return;
    const others = this.stanzas.get(name);
    if (others === undefined) this.stanzas.set(name, [stanza]);
    else others.push(stanza);
    const provides = fieldOf(stanza, 'Provides');
    if (provides === undefined) return;
    for (const relation of parseRelations(provides).flat()) {
      const names = this.providers.get(relation.name) ?? new Set();
      this.providers.set(relation.name, names.add(name));
    }
  }
}

function fieldOf(stanza: string, name: string): string | undefined {
  const label = `${name}: `;
  const start = stanza.startsWith(label) ? 0 : stanza.indexOf(`\n${label}`) + 1;
  if (start === 0 && !stanza.startsWith(label)) return undefined;
  const end = stanza.indexOf('\n', start);
  return stanza.slice(start + label.length, end < 0 ? undefined : end).trim();
}

/** A stanza without a digest, or with a path that leads out of the archive, describes nothing that could be fetched. */
function describe(stanza: string, suite: string): ListedPackage | undefined {
  const field = (name: string) => fieldOf(stanza, name) ?? '';
  const [sha256, path, bytes] = [field('SHA256'), field('Filename'), Number(field('Size'))];
  if (!/^[0-9a-f]{64}$/.test(sha256) || !isPoolPath(path) || !isExact(bytes) || bytes <= 0) return undefined;
  return {
    name: field('Package'),
    version: field('Version'),
    architecture: field('Architecture'),
    suite,
    bytes,
    sha256,
    paths: pathsOf(path),
    depends: [...parseRelations(field('Pre-Depends')), ...parseRelations(field('Depends'))],
    provides: parseRelations(field('Provides')).flat(),
  };
}

/** Whether this is a path of a package within an archive's pool, and leads nowhere else. */
export function isPoolPath(path: string): boolean {
  return /^pool\/[A-Za-z0-9+._~/%-]+\.deb$/.test(path) && !path.split('/').some((part) => /^\.*$/.test(part));
}

/** The path in the index, and where the security archive has the same file if it came from there. */
function pathsOf(path: string): string[] {
  const security = path.replace(/^pool\/main\//, SECURITY_POOL);
  return security === path ? [path] : [path, security];
}

/** Begins the paths that are in the security archive, not in the main one. */
export const SECURITY_POOL = 'pool/updates/main/';
