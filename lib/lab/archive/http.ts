import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Ended, runCommand, runToEnd } from '../command.ts';
import { LabError } from '../lab-error.ts';

/*
 * Files of an archive over the network. curl does it, told to use the proxies that apt uses.
 */

const APT_HELPER = '/usr/lib/apt/apt-helper';
const AT_ONCE = 8;
const CONNECT_TIMEOUT_S = 10;
const ASK_TIMEOUT_S = 20;
/** A transfer that brings less than this many bytes a second, for so many seconds, is given up. */
const SLOWEST = { bytes: 512, seconds: 20 } as const;
const DOWNLOAD_TIMEOUT_MS = 3_600_000;

/** What a server says of an address: it has the file, of that size if it says so; it has not; or nobody answers. */
export type Answer =
  | { readonly kind: 'there'; readonly bytes?: number | undefined }
  | { readonly kind: 'absent'; readonly reason: string }
  | { readonly kind: 'silent'; readonly reason: string };

export interface Download {
  readonly address: string;
  /** A file to write, or to go on with if part of it is there. */
  readonly path: string;
}

/** Asks for addresses without fetching anything. */
export async function ask(addresses: readonly string[], signal?: AbortSignal): Promise<Map<string, Answer>> {
  const answers = new Map<string, Answer>();
  for (const [proxy, group] of await byProxy(addresses, signal)) {
    const { stdout } = await curl(
      proxy,
      ['head', `max-time = ${ASK_TIMEOUT_S}`],
      group.map((address) => ({ address, path: '/dev/null' })),
      signal,
    );
    for (const line of stdout.toString().split('\n')) {
      const [address, status, exit, length, reason] = line.split('\t');
      if (address !== undefined && status !== undefined)
        answers.set(address, answerOf(address, status, exit, length, reason));
    }
    const forgotten = group.find((address) => !answers.has(address));
    if (forgotten !== undefined) throw new LabError(`curl did not say whether ${forgotten} is there.`);
  }
  return answers;
}

/** Fetches files, going on with those of which a part is there. What came is for the caller to check; reasons are given for what did not. */
export async function download(files: readonly Download[], signal?: AbortSignal): Promise<Map<string, string>> {
  const failures = new Map<string, string>();
  for (const { path } of files) await mkdir(dirname(path), { recursive: true });
  for (const [proxy, addresses] of await byProxy(
    files.map(({ address }) => address),
    signal,
  )) {
    const group = files.filter(({ address }) => addresses.includes(address));
    const limits = [`speed-limit = ${SLOWEST.bytes}`, `speed-time = ${SLOWEST.seconds}`];
    const { stdout } = await curl(proxy, ['fail', 'continue-at = "-"', ...limits], group, signal);
    for (const line of stdout.toString().split('\n')) {
      const [address, status, exit, , reason] = line.split('\t');
      if (address === undefined || exit === undefined || exit === '0') continue;
      failures.set(address, reason === '' || reason === undefined ? `status ${status}` : reason);
    }
  }
  return failures;
}

function answerOf(address: string, status: string, exit = '', length = '', reason = ''): Answer {
  const isHttp = /^https?:/.test(address);
  if (isHttp && status !== '000') {
    if (!/^2/.test(status)) return { kind: 'absent', reason: `status ${status}` };
    return { kind: 'there', bytes: /^\d+$/.test(length) ? Number(length) : undefined };
  }
  if (exit === '0') return { kind: 'there' };
  return { kind: isHttp ? 'silent' : 'absent', reason: reason || `curl ended with ${exit}` };
}

function curl(
  proxy: string | undefined,
  settings: readonly string[],
  files: readonly Download[],
  signal: AbortSignal | undefined,
): Promise<Ended> {
  const config = [
    ...['silent', 'location', 'globoff', 'parallel', `parallel-max = ${AT_ONCE}`],
    `connect-timeout = ${CONNECT_TIMEOUT_S}`,
    `write-out = "%{url}\\t%{http_code}\\t%{exitcode}\\t%header{content-length}\\t%{errormsg}\\n"`,
    ...(proxy === undefined ? [] : [`proxy = ${quote(proxy)}`]),
    ...settings,
    ...files.flatMap(({ address, path }) => [`url = ${quote(address)}`, `output = ${quote(path)}`]),
  ];
  // Without the user's own configuration, which may be anything.
  return runToEnd('curl', ['--disable', '--config', '-'], {
    input: `${config.join('\n')}\n`,
    signal,
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
  });
}

function quote(text: string): string {
  return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}

/** Addresses by the proxy through which apt reaches their hosts; without one, curl looks into the environment, as apt does. */
async function byProxy(
  addresses: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Map<string | undefined, string[]>> {
  const groups = new Map<string | undefined, string[]>();
  const hosts = new Map<string, string | undefined>();
  for (const address of addresses) {
    const { origin } = new URL(address);
    if (!hosts.has(origin)) hosts.set(origin, await proxyOf(address, signal));
    const proxy = hosts.get(origin);
    groups.set(proxy, [...(groups.get(proxy) ?? []), address]);
  }
  return groups;
}

async function proxyOf(address: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  const { protocol, hostname } = new URL(address);
  if (!/^https?:$/.test(protocol)) return undefined;
  // What a program says that apt is configured to ask; it knows nothing of proxies that are written down.
  const detected = await runToEnd(APT_HELPER, ['auto-detect-proxy', address], { signal, timeoutMs: 30_000 });
  const found = /Using proxy '([^']+)'/.exec(detected.stdout.toString())?.[1];
  const dump = (await runCommand('apt-config', ['dump'], { signal })).toString();
  const proxy = found ?? configuredProxy(dump, protocol.slice(0, -1), hostname);
  return proxy === 'DIRECT' || proxy === 'false' ? '' : proxy; // In curl's words: none, whatever the environment says.
}

/** The proxy that the configuration of apt names for a host. */
export function configuredProxy(dump: string, scheme: string, host: string): string | undefined {
  const values = new Map<string, string>();
  for (const line of dump.split('\n')) {
    const match = /^(\S+) "(.*)";$/.exec(line);
    if (match !== null) values.set(match[1]!.toLowerCase(), match[2]!);
  }
  const schemes = scheme === 'https' ? ['https', 'http'] : ['http'];
  const names = schemes.flatMap((each) => [`acquire::${each}::proxy::${host}`, `acquire::${each}::proxy`]);
  return names.map((name) => values.get(name.toLowerCase())).find((value) => value !== undefined && value !== '');
}
