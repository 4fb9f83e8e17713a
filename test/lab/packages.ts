import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { runCommand } from './command.ts';
import { DEBIAN_KEYRING } from './host-tools.ts';
import { LabError } from './lab-error.ts';

/** One Debian package, as the archive's signed index describes it. */
export interface Package {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** `'URI' file size SHA256:hash` lines of `apt-get --print-uris`. */
export function parsePrintedUris(text: string): Package[] {
  return text.split('\n').flatMap((line) => {
    const match = /^'[^']+' (\S+\.deb) (\d+) SHA256:([0-9a-f]{64})$/.exec(line.trim());
    return match === null ? [] : [{ file: match[1]!, bytes: Number(match[2]), sha256: match[3]! }];
  });
}

/** `name=version` of a package file's name, in which apt escapes the epoch's colon. */
export function packageSpec(file: string): string {
  const [name, version] = file.split('_');
  if (name === undefined || version === undefined) throw new LabError(`${file} is not the name of a Debian package.`);
  return `${name}=${decodeURIComponent(version)}`;
}

/** The lines of `apt-config dump` that say how to reach the network here: proxies, credentials, certificates. */
export function networkSettings(dump: string): string {
  const kept = dump.split('\n').filter((line) => /^Acquire::(http|https|ftp|socks|ForceIPv[46]|Check-)/i.test(line));
  return kept.join('\n');
}

/**
 * apt with a state of its own: another architecture, one suite, and nothing of the machine's package state. Only how to reach
 * the network is taken from the machine's configuration; its hooks are not run.
 */
export class PrivateApt {
  private readonly folder: string;
  private readonly debianArch: string;
  private readonly suite: string;
  private readonly mirror: string;
  private readonly signal: AbortSignal | undefined;

  constructor(folder: string, debianArch: string, suite: string, mirror: string, signal: AbortSignal | undefined) {
    this.folder = folder;
    this.debianArch = debianArch;
    this.suite = suite;
    this.mirror = mirror;
    this.signal = signal;
  }

  /** Reads the suite's current index from the mirror; apt checks its signature. */
  async update(): Promise<void> {
    const { folder } = this;
    await mkdir(join(folder, 'lists/partial'), { recursive: true });
    await mkdir(join(folder, 'cache/archives/partial'), { recursive: true });
    await writeFile(join(folder, 'status'), '');
    await writeFile(
      join(folder, 'sources.list'),
      `deb [signed-by=${DEBIAN_KEYRING}] ${this.mirror} ${this.suite} main\n`,
    );
    const dump = (await runCommand('apt-config', ['dump'], { signal: this.signal })).toString();
    await writeFile(join(folder, 'apt.conf'), `${networkSettings(dump)}\n${this.settings()}`);
    await this.apt('apt-get', ['update', '-o', 'APT::Update::Error-Mode=any']);
  }

  /** The package that a meta package depends on and whose name starts the same way. */
  async dependencyOf(metaPackage: string, prefix: string): Promise<string> {
    const text = await this.apt('apt-cache', ['depends', '--important', metaPackage]);
    const name = text.split('\n').flatMap((line) => /^\s*Depends: (\S+)$/.exec(line)?.[1] ?? []);
    const found = name.find((each) => each.startsWith(prefix));
    if (found === undefined) throw new LabError(`${metaPackage} of ${this.suite} depends on no package ${prefix}…`);
    return found;
  }

  /** The given packages and everything that they depend on. */
  async closureOf(names: readonly string[]): Promise<Package[]> {
    return parsePrintedUris(
      await this.apt('apt-get', ['install', '--print-uris', '-y', '--no-install-recommends', ...names]),
    );
  }

  /** The given packages alone. */
  async describe(names: readonly string[]): Promise<Package[]> {
    return parsePrintedUris(await this.apt('apt-get', ['download', '--print-uris', ...names]));
  }

  /** Brings the packages into a folder, each verified against the signed index, whatever was left there before. */
  async download(packages: readonly Package[], folder: string): Promise<void> {
    await mkdir(folder, { recursive: true });
    const missing: Package[] = [];
    for (const each of packages) {
      const path = join(folder, each.file);
      if (await matches(path, each)) continue;
      await rm(path, { force: true }); // Half a download, or something else by that name.
      missing.push(each);
    }
    if (missing.length === 0) return;
    await this.apt('apt-get', ['download', ...missing.map((each) => packageSpec(each.file))], folder);
    for (const each of missing) {
      const path = join(folder, each.file);
      if (await matches(path, each)) continue;
      await rm(path, { force: true });
      throw new LabError(`${each.file} did not arrive as the archive's index describes it; run the lab again.`);
    }
  }

  private async apt(command: string, args: readonly string[], cwd?: string): Promise<string> {
    const env = { APT_CONFIG: join(this.folder, 'apt.conf') };
    const output = await runCommand(command, ['-q', '-q', ...args], {
      env,
      signal: this.signal,
      timeoutMs: 900_000,
      ...(cwd === undefined ? {} : { cwd }),
    });
    return output.toString();
  }

  private settings(): string {
    const { folder, debianArch } = this;
    const entries: Record<string, string> = {
      'APT::Architecture': debianArch,
      'APT::Sandbox::User': 'root',
      'Dir::State': `${folder}/`,
      'Dir::State::lists': `${folder}/lists`,
      'Dir::State::status': `${folder}/status`,
      'Dir::Cache': `${folder}/cache`,
      'Dir::Etc::sourcelist': `${folder}/sources.list`,
      'Dir::Etc::sourceparts': '/dev/null',
      'Dir::Etc::preferences': '/dev/null',
      'Dir::Etc::preferencesparts': '/dev/null',
      'Dir::Etc::main': '/dev/null',
      'Dir::Etc::parts': '/dev/null',
      'Acquire::Languages': 'none',
      'Acquire::ForceHash': 'sha256',
      'Acquire::Retries': '2',
      'Acquire::http::Timeout': '30',
      'Acquire::https::Timeout': '30',
    };
    const lines = Object.entries(entries).map(([name, value]) => `${name} "${value}";`);
    return `${lines.join('\n')}\nAPT::Architectures { "${debianArch}"; };\n`;
  }
}

async function matches(path: string, expected: Package): Promise<boolean> {
  try {
    if ((await stat(path)).size !== expected.bytes) return false;
  } catch {
    return false;
  }
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex') === expected.sha256;
}
