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
  handles: ['handles', 'rules.ts', 'model'],
  emulated: ['emulated', 'rules.ts', 'model'],
  'rules.ts': ['model'],
  model: ['model'],
};

interface Place {
  readonly floor: number;
  readonly arch: string | undefined;
  readonly room: string | undefined;
}

/** @throws Error for a file that stands on no floor, or in none of an architecture's rooms */
function placeOf(file: string): Place {
  const [lib, folder, ...rest] = file.split('/');
  const name = rest.length === 0 ? '' : folder!;
  const floor = FLOORS.indexOf(name);
  if (lib !== 'lib' || floor < 0) throw new Error(`${file} stands on no floor of lib`);
  const [arch, room] = name === 'arch' ? rest : [];
  if (name === 'arch' && (room === undefined || !Object.hasOwn(ROOMS, room))) {
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
