import { dirname, join } from 'node:path';

type GypValue = string | number | readonly GypValue[] | GypRecord;
type GypRecord = { readonly [key: string]: GypValue };

/** What the cross compilation of the addon takes from `binding.gyp` and the files that it includes. */
export interface GypTarget {
  readonly name: string;
  /** Paths. */
  readonly sources: readonly string[];
  /** Paths. */
  readonly includeFolders: readonly string[];
  readonly defines: readonly string[];
  readonly compilerFlags: readonly string[];
  readonly linkerFlags: readonly string[];
}

/** One token of GYP's Python literals: a comment or white space, a string, a number, or a bracket or the like. */
const TOKEN = /#[^\n]*|\s+|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|-?\d+|[[\]{}:,]/y;

/**
 * The first target of a `binding.gyp`, without its conditions. Entries that are GYP expansions (`<(…)`, `<!(…)`) are left out: the
 * build knows its own paths of the Node headers.
 *
 * @param path of the file
 * @param read returns a file's text
 * @throws SyntaxError if a text is not one of the Python literals that GYP accepts, or there is no target
 */
export function readGypTarget(path: string, read: (path: string) => string): GypTarget {
  const root = parseGyp(read(path));
  const target = Array.isArray(root.targets) ? (root.targets[0] as GypValue | undefined) : undefined;
  if (target === undefined || !isRecord(target) || typeof target.target_name !== 'string') {
    throw new SyntaxError(`${path} has no target`);
  }
  const files = [
    { folder: dirname(path), settings: target },
    ...plainStrings(target.includes).map((include) => {
      const included = join(dirname(path), include);
      return { folder: dirname(included), settings: parseGyp(read(included)) };
    }),
  ];
  const all = (key: string) => files.flatMap(({ settings }) => plainStrings(settings[key]));
  const paths = (key: string) =>
    files.flatMap(({ folder, settings }) => plainStrings(settings[key]).map((each) => join(folder, each)));
  return {
    name: target.target_name,
    sources: paths('sources'),
    includeFolders: paths('include_dirs'),
    defines: all('defines'),
    compilerFlags: [...all('cflags'), ...all('cflags_cc')],
    linkerFlags: all('ldflags'),
  };
}

function parseGyp(text: string): GypRecord {
  const value = JSON.parse(toJson(text)) as GypValue;
  if (!isRecord(value)) throw new SyntaxError('a GYP file is a dictionary');
  return value;
}

function plainStrings(value: GypValue | undefined): string[] {
  if (!Array.isArray(value)) return [];
  return (value as readonly GypValue[])
    .filter((each) => typeof each === 'string')
    .filter((each) => !each.includes('<'));
}

function isRecord(value: GypValue): value is GypRecord {
  return typeof value === 'object' && !Array.isArray(value);
}

/** The same literal as JSON: no comments, no trailing commas, double quotes. */
function toJson(text: string): string {
  TOKEN.lastIndex = 0;
  let json = '';
  let comma = '';
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const token = TOKEN.exec(text)?.[0];
    if (token === undefined) throw new SyntaxError(`GYP: unexpected ${JSON.stringify(text.slice(at, at + 20))}`);
    if (token.startsWith('#') || token.trim() === '') continue;
    if (token === ',') {
      comma = ',';
      continue;
    }
    json += (token === ']' || token === '}' ? '' : comma) + (/^['"]/.test(token) ? toJsonString(token) : token);
    comma = '';
  }
  return json;
}

function toJsonString(token: string): string {
  return JSON.stringify(token.slice(1, -1).replace(/\\(.)/gs, '$1'));
}
