import { resolve } from 'node:path';
import { inGuest, isInside, type ProjectFiles } from './project-files.ts';

/** What the agent in the guest is to run; it finds this as JSON. */
export interface UserJob {
  /** Node's command line there: options, the script, and what follows it. */
  readonly nodeArguments: readonly string[];
  /** Where it is run. */
  readonly folder: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Whether the program finds `/lab/input` on its standard input; nothing is there otherwise. */
  readonly hasInput: boolean;
  /** The folder whose files are brought back. */
  readonly out: string | undefined;
}

/** Where files of an `out` outside the project are put. */
const ELSEWHERE = '/out';

/** The script that Node's command line names; undefined for standard input (`-`). */
export const scriptIn = (nodeArguments: readonly string[]): string | undefined =>
  nodeArguments[0] === '-' ? undefined : nodeArguments.find((each) => !each.startsWith('-'));

/** What a user asked for. */
export interface Asked {
  /** Node's command line: options, the script, its arguments. */
  readonly nodeArguments: readonly string[];
  readonly cwd: string;
  /** A folder whose files are brought back: it is there in the guest, empty, at the same place. */
  readonly out?: string | undefined;
  readonly environment: Readonly<Record<string, string>>;
  /** What the program reads from its standard input; nothing unless given. */
  readonly input?: Uint8Array | undefined;
}

/** What a user asked for, with the paths of that machine. `out` is absolute. */
export function jobOf({ nodeArguments, environment, cwd, input, out }: Asked, project: ProjectFiles): UserJob {
  const { root, home, folder } = project;
  const script = nodeArguments.indexOf(scriptIn(nodeArguments) ?? '');
  const there = isInside(root, cwd);
  const moved = nodeArguments.map((each, index) => {
    const path = resolve(cwd, each);
    const isScript = index === script;
    return (isScript && !there) || (each.startsWith('/') && isInside(root, path)) ? inGuest(project, path) : each;
  });
  const outThere = out === undefined ? undefined : isInside(root, out) ? inGuest({ root, home }, out) : ELSEWHERE;
  const named: Record<string, string> = outThere === undefined ? {} : { KVM_BRIDGE_LAB_OUT: outThere };
  const hasInput = input !== undefined;
  return { nodeArguments: moved, folder, environment: { ...environment, ...named }, hasInput, out: outThere };
}
