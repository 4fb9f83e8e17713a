import { compareVersions } from './version.ts';

type Comparison = '<<' | '<=' | '=' | '>=' | '>>';

/** One alternative of a dependency: a package or what packages provide, perhaps in some versions only. */
export interface Relation {
  readonly name: string;
  readonly comparison?: Comparison | undefined;
  readonly version?: string | undefined;
}

/** The dependencies in a field of a package (Debian Policy, 7.1): all of them are needed, and of each, one alternative. */
export function parseRelations(field: string): Relation[][] {
  return field
    .split(',')
    .map((each) => each.split('|').map((alternative) => parseRelation(alternative.trim())))
    .map((alternatives) => alternatives.filter((each) => each !== undefined))
    .filter((alternatives) => alternatives.length > 0);
}

function parseRelation(text: string): Relation | undefined {
  const match = /^([a-z0-9][a-z0-9+.-]*)(?::[a-z0-9]+)?\s*(?:\((<<|<=|=|>=|>>)\s*([^)\s]+)\s*\))?/.exec(text);
  if (match === null) return undefined;
  return { name: match[1]!, comparison: match[2] as Comparison | undefined, version: match[3] };
}

/** Whether a version is one that the relation asks for; a name that is provided without a version has none. */
export function isVersionWanted(relation: Relation, version: string | undefined): boolean {
  if (relation.comparison === undefined || relation.version === undefined) return true;
  if (version === undefined) return false;
  const order = compareVersions(version, relation.version);
  switch (relation.comparison) {
    case '<<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '=':
      return order === 0;
    case '>=':
      return order >= 0;
    case '>>':
      return order > 0;
  }
}
