import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from './lab-error.ts';

/** Overrides what the machine's apt sources say; for machines that have none of Debian's. */
export const MIRROR_VARIABLE = 'KVM_BRIDGE_DEBIAN_MIRROR';

/** Where python-apt, which Ubuntu installs by default, keeps what it knows about Debian's archive. */
const DISTRIBUTION_TEMPLATE = '/usr/share/python-apt/templates/Debian.info';

const DEBIAN_SUITES =
  /^(oldoldstable|oldstable|stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)$/;

interface Source {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
}

/**
 * The address of Debian's archive that this machine uses: the labs never name a mirror of their own.
 *
 * @throws LabError if the machine has no apt source of Debian's
 */
export function findDebianMirror(): string {
  const chosen = process.env[MIRROR_VARIABLE];
  if (chosen !== undefined && chosen !== '') return chosen;
  const mirror =
    mirrorFromSources(readAptSources('/etc/apt')) ?? mirrorFromTemplate(readIfPresent(DISTRIBUTION_TEMPLATE));
  if (mirror === undefined) {
    throw new LabError(
      `No Debian archive is among this machine's apt sources; set ${MIRROR_VARIABLE} to the address of a Debian mirror.`,
    );
  }
  return mirror;
}

/** A file of apt sources: its name tells the format. */
export interface SourcesFile {
  readonly name: string;
  readonly text: string;
}

/** The address of Debian's main archive among apt sources of either format. */
export function mirrorFromSources(files: readonly SourcesFile[]): string | undefined {
  const sources = files.flatMap(({ name, text }) => (name.endsWith('.sources') ? parseDeb822(text) : parseLines(text)));
  const uris = sources
    .filter(({ suites, components }) => components.includes('main') && suites.some((each) => DEBIAN_SUITES.test(each)))
    .map(({ uri }) => uri.replace(/\/+$/, ''))
    // Other vendors name their suites after Debian's, too. Debian's own archive is a folder `debian`, a dated copy inside one, or a list of mirrors of that name.
    .filter((uri) => /\/debian(\/\d+T\d+Z)?$|^mirror\+file:.*\/debian\.list$/.test(uri));
  return uris[0];
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
