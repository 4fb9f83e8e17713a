import type { Imports } from './imports.ts';

/** The floors of lib from the top; an import goes to the same floor or to a lower one. */
const FLOORS = [
  'cli',
  'lab',
  // index.ts and raw.ts: what users import, and the command line does as they do.
  '',
  'vhost-user',
  'migration',
  'handles',
  'backends',
  'arch',
  'sharing',
  'emulated',
  'memory',
  'snapshot',
  'rules',
  'calls',
  'base',
  'uapi',
];

/** What an architecture's rooms may import of the same architecture. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  'cli.ts': ['handles', 'rules.ts', 'model'],
  'index.ts': ['handles', 'emulated', 'rules.ts', 'model'],
  handles: ['handles', 'rules.ts', 'model'],
  emulated: ['emulated', 'rules.ts', 'model'],
  'rules.ts': ['model'],
  model: ['model'],
};

/** Rooms that stand on the floor of this name, and not on that of arch. */
const FLOOR_OF_ROOM: Readonly<Record<string, string>> = { 'cli.ts': 'cli' };

/** What stands in arch itself: the list of folders, and what each of them hands out. */
const OF_ALL_ARCHITECTURES = ['folders.ts', 'index.ts', 'parts.ts'];

interface Place {
  readonly floor: number;
  readonly arch: string | undefined;
  readonly room: string | undefined;
}

/** @throws Error for a file that stands on no floor, or in none of an architecture's rooms */
function placeOf(file: string): Place {
  const [lib, folder, ...rest] = file.split('/');
  const name = rest.length === 0 ? '' : folder!;
  const isOfOne = name === 'arch' && !OF_ALL_ARCHITECTURES.includes(rest.join('/'));
  const [arch, room] = isOfOne ? rest : [];
  const floor = FLOORS.indexOf(FLOOR_OF_ROOM[room ?? ''] ?? name);
  if (lib !== 'lib' || floor < 0) throw new Error(`${file} stands on no floor of lib`);
  if (isOfOne && (room === undefined || !Object.hasOwn(ROOMS, room))) {
    throw new Error(`${file} is in none of an architecture's rooms: ${Object.keys(ROOMS).join(', ')}`);
  }
  return { floor, arch, room };
}

/** What is wrong with each import that may not be, both files named. */
export function wrongImports(imports: Imports): readonly string[] {
  return [...imports].flatMap(([file, targets]) =>
    targets.flatMap((target) => {
      const why = whyNot(placeOf(file), placeOf(target));
      return why === undefined ? [] : [`${file} imports ${target}, ${why}`];
    }),
  );
}

function whyNot(from: Place, to: Place): string | undefined {
  if (to.floor < from.floor) return 'which is on a higher floor';
  if (from.arch === undefined || to.arch === undefined) return undefined;
  if (from.arch !== to.arch) return 'which is of another architecture';
  return ROOMS[from.room!]!.includes(to.room!) ? undefined : `and no ${from.room} may look into ${to.room}`;
}
