import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../command.ts';
import { DEBIAN_KEYRING } from '../host-tools.ts';
import { LabError } from '../lab-error.ts';
import { SuiteIndex } from './suite-index.ts';

const APT_HELPER = '/usr/lib/apt/apt-helper';
const UPDATE_TIMEOUT_MS = 300_000;

/** The lines of `apt-config dump` that say how to reach the network here: proxies, credentials, certificates. */
export function networkSettings(dump: string): string {
  const kept = dump.split('\n').filter((line) => /^Acquire::(http|https|ftp|socks|ForceIPv[46]|Check-)/i.test(line));
  return kept.join('\n');
}

export interface AptOptions {
  /** apt's private state. */
  readonly folder: string;
  readonly debianArch: string;
  readonly suite: string;
  /** The archive's address as apt understands it. */
  readonly mirror: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads a suite's current index. apt checks its signature, with a state of its own: another architecture, one suite, and nothing of
 * the machine's package state. Only how to reach the network is taken from the machine's configuration; its hooks are not run.
 */
export async function readSuiteIndex(options: AptOptions): Promise<SuiteIndex> {
  const { folder, suite, debianArch, signal } = options;
  await mkdir(join(folder, 'lists/partial'), { recursive: true });
  await mkdir(join(folder, 'cache/archives/partial'), { recursive: true });
  await writeFile(join(folder, 'status'), '');
  const source = `deb [signed-by=${DEBIAN_KEYRING}] ${options.mirror} ${suite} main\n`;
  await writeFile(join(folder, 'sources.list'), source);
  const dump = (await runCommand('apt-config', ['dump'], { signal })).toString();
  await writeFile(join(folder, 'apt.conf'), `${networkSettings(dump)}\n${settings(options)}`);
  const run = { env: { APT_CONFIG: join(folder, 'apt.conf') }, signal, timeoutMs: UPDATE_TIMEOUT_MS };
  await runCommand('apt-get', ['-q', '-q', 'update', '-o', 'APT::Update::Error-Mode=any'], run);
  const lists = (await readdir(join(folder, 'lists'))).filter((name) =>
    /_main_binary-[a-z0-9]+_Packages(\.\w+)?$/.test(name),
  );
  if (lists.length !== 1)
    throw new LabError(`apt left ${lists.length} indexes of ${suite} for ${debianArch}, not one.`);
  const text = await runCommand(APT_HELPER, ['cat-file', join(folder, 'lists', lists[0]!)], run);
  return new SuiteIndex(suite, text.toString());
}

function settings({ folder, debianArch }: AptOptions): string {
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
    'Acquire::PDiffs': 'false',
    'Acquire::ForceHash': 'sha256',
    'Acquire::Retries': '1',
    'Acquire::http::Timeout': '15',
    'Acquire::https::Timeout': '15',
  };
  const lines = Object.entries(entries).map(([name, value]) => `${name} "${value}";`);
  return `${lines.join('\n')}\nAPT::Architectures { "${debianArch}"; };\n`;
}
