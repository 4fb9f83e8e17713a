type GypValue = string | number | readonly GypValue[] | { readonly [key: string]: GypValue };

/** What the cross compilation of the addon takes from `binding.gyp`. */
export interface GypTarget {
  readonly name: string;
  readonly sources: readonly string[];
  readonly defines: readonly string[];
  readonly includeFolders: readonly string[];
}

/** One token of GYP's Python literals: a comment or white space, a string, a number, or a bracket or the like. */
const TOKEN = /#[^\n]*|\s+|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|-?\d+|[[\]{}:,]/y;

/**
 * The first target of a `binding.gyp`. Entries that are GYP expansions (`<(…)`, `<!(…)`) are left out: the build knows its own
 * paths of the Node headers.
 *
 * @throws SyntaxError if the text is not one of the Python literals that GYP accepts
 */
export function readGypTarget(text: string): GypTarget {
  const root = JSON.parse(toJson(text)) as GypValue;
  const targets = isRecord(root) ? root.targets : undefined;
  const target = Array.isArray(targets) ? (targets[0] as GypValue | undefined) : undefined;
  if (target === undefined || !isRecord(target) || typeof target.target_name !== 'string') {
    throw new SyntaxError('binding.gyp has no target');
  }
  return {
    name: target.target_name,
    sources: plainStrings(target.sources),
    defines: plainStrings(target.defines),
    includeFolders: plainStrings(target.include_dirs),
  };
}

function plainStrings(value: GypValue | undefined): string[] {
  if (!Array.isArray(value)) return [];
  return (value as readonly GypValue[])
    .filter((each) => typeof each === 'string')
    .filter((each) => !each.includes('<'));
}

function isRecord(value: GypValue): value is { readonly [key: string]: GypValue } {
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
    if (token === undefined)
      throw new SyntaxError(`binding.gyp: unexpected ${JSON.stringify(text.slice(at, at + 20))}`);
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
