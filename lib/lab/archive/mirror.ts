import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../lab-error.ts';

/** Overrides what the machine's apt sources say; for machines that have none of Debian's. */
export const MIRROR_VARIABLE = 'KVM_BRIDGE_DEBIAN_MIRROR';

/** The address of a snapshot archive, or of a dated copy in one: one more place in which to look for a file. */
export const SNAPSHOT_VARIABLE = 'KVM_BRIDGE_DEBIAN_SNAPSHOT';

/** Where python-apt, which Ubuntu installs by default, keeps what it knows about Debian's archive. */
const DISTRIBUTION_TEMPLATE = '/usr/share/python-apt/templates/Debian.info';

const DEBIAN_SUITES =
  /^(oldoldstable|oldstable|stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)$/;
const SECURITY_SUITES = /-security$/;

interface Source {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
}

/** Where Debian's packages are, for this machine. */
export interface Archive {
  /** The main archive's address as apt understands it. */
  readonly apt: string;
  /** Addresses of the main archive, and of the security archive, which keeps some files that a mirror may lack. */
  readonly main: readonly string[];
  readonly security: readonly string[];
  /** A snapshot archive, or a dated copy in one. */
  readonly snapshot?: string | undefined;
}

/**
 * The addresses of Debian's archives that this machine uses: the labs never name a mirror of their own.
 *
 * @throws LabError if the machine has no apt source of Debian's
 */
export function findArchive(environment: Readonly<Record<string, string | undefined>> = process.env): Archive {
  const files = readAptSources('/etc/apt');
  const apt =
    addressIn(environment, MIRROR_VARIABLE) ??
    mirrorFromSources(files) ??
    mirrorFromTemplate(readIfPresent(DISTRIBUTION_TEMPLATE));
  if (apt === undefined) {
    throw new LabError(
      `No Debian archive is among this machine's apt sources; set ${MIRROR_VARIABLE} to the address of a Debian mirror.`,
    );
  }
  const main = membersOf(apt);
  // A mirror that was chosen by hand is the only one to be asked.
  const own = addressIn(environment, MIRROR_VARIABLE) === undefined ? securityFromSources(files) : undefined;
  const security = own === undefined ? main.flatMap((each) => securityBeside(each) ?? []) : membersOf(own);
  return { apt, main, security, snapshot: addressIn(environment, SNAPSHOT_VARIABLE) };
}

function addressIn(environment: Readonly<Record<string, string | undefined>>, name: string): string | undefined {
  const chosen = environment[name]?.replace(/\/+$/, '');
  if (chosen === undefined || chosen === '') return undefined;
  if (/^(https?|ftp|file|mirror\+file):/.test(chosen)) return chosen;
  throw new LabError(`${name} is ${JSON.stringify(chosen)}, which is not the address of an archive, such as http://….`);
}

/** The addresses behind one: those in the file of a `mirror+file:` source, or the address itself. */
function membersOf(address: string): string[] {
  const list = /^mirror\+file:(?:\/\/)?(\/.*)$/.exec(address)?.[1];
  if (list === undefined) return [address];
  const members = (readIfPresent(list) ?? '').split('\n').flatMap((line) => /^[a-z]+:\S+/.exec(line)?.[0] ?? []);
  if (members.length === 0) throw new LabError(`${list}, which an apt source names, lists no mirror.`);
  return members.map((each) => each.replace(/\/+$/, ''));
}

function securityBeside(main: string): string | undefined {
  const beside = main.replace(/\/debian(?=(\/\d+T\d+Z)?$)/, '/debian-security');
  return beside === main ? undefined : beside;
}

/** A file of apt sources: its name tells the format. */
export interface SourcesFile {
  readonly name: string;
  readonly text: string;
}

/** The address of Debian's main archive among apt sources of either format. */
export function mirrorFromSources(files: readonly SourcesFile[]): string | undefined {
  return archiveFromSources(files, DEBIAN_SUITES, 'debian');
}

/** The address of Debian's security archive among apt sources of either format. */
export function securityFromSources(files: readonly SourcesFile[]): string | undefined {
  return archiveFromSources(files, SECURITY_SUITES, 'debian-security');
}

function archiveFromSources(files: readonly SourcesFile[], suites: RegExp, folder: string): string | undefined {
  const sources = files.flatMap(({ name, text }) => (name.endsWith('.sources') ? parseDeb822(text) : parseLines(text)));
  // Other vendors name their suites after Debian's, too. Debian's own archives are folders of these names, dated copies inside them, or lists of mirrors.
  const own = new RegExp(`/${folder}(/\\d+T\\d+Z)?$|^mirror\\+file:.*/${folder}\\.list$`);
  return sources
    .filter((each) => each.components.includes('main') && each.suites.some((suite) => suites.test(suite)))
    .map(({ uri }) => uri.replace(/\/+$/, ''))
    .find((uri) => own.test(uri));
}

/** The archive's address in python-apt's template of Debian. */
export function mirrorFromTemplate(text: string | undefined): string | undefined {
  return /^BaseURI:\s*(\S*\/debian)\/?\s*$/m.exec(text ?? '')?.[1];
}

function parseLines(text: string): Source[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+([^#]*)/.exec(line);
    if (match === null) return [];
    return [{ uri: match[1]!, suites: [match[2]!], components: words(match[3]!) }];
  });
}

function parseDeb822(text: string): Source[] {
  const unfolded = text.replace(/^#.*\n?/gm, '').replace(/\n[ \t]+/g, ' ');
  return unfolded.split(/\n\s*\n/).flatMap((stanza) => {
    const field = (name: string) => words(new RegExp(`^${name}:(.*)$`, 'im').exec(stanza)?.[1] ?? '');
    if (!field('Types').includes('deb') || /^(no|false|0)$/i.test(field('Enabled')[0] ?? '')) return [];
    return field('URIs').map((uri) => ({ uri, suites: field('Suites'), components: field('Components') }));
  });
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

function readAptSources(folder: string): SourcesFile[] {
  const parts = join(folder, 'sources.list.d');
  let names: string[] = [];
  try {
    names = readdirSync(parts).filter((name) => /\.(list|sources)$/.test(name));
  } catch {
    // A machine without the folder just has no further sources.
  }
  return [join(folder, 'sources.list'), ...names.sort().map((name) => join(parts, name))].flatMap((name) => {
    const text = readIfPresent(name);
    return text === undefined ? [] : [{ name, text }];
  });
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
