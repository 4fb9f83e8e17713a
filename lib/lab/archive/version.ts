/**
 * Orders two versions of a package as the archive does (Debian Policy, 5.6.12).
 *
 * @returns a negative number if `a` is the older one, 0 if they are the same, a positive number if `a` is the newer one
 */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [splitVersion(a), splitVersion(b)];
  return (
    left.epoch - right.epoch ||
    compareParts(left.upstream, right.upstream) ||
    compareParts(left.revision, right.revision)
  );
}

function splitVersion(version: string) {
  const colon = version.indexOf(':');
  const rest = version.slice(colon + 1);
  const dash = rest.lastIndexOf('-');
  return {
    epoch: colon < 0 ? 0 : Number(version.slice(0, colon)),
    upstream: dash < 0 ? rest : rest.slice(0, dash),
    revision: dash < 0 ? '' : rest.slice(dash + 1),
  };
}

/** Stretches of anything but digits, and numbers, in turn. */
function compareParts(a: string, b: string): number {
  const [left, right] = [stretches(a), stretches(b)];
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const [one, other] = [left[index] ?? '', right[index] ?? ''];
    const difference = index % 2 === 0 ? compareLetters(one, other) : Number(one) - Number(other);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The stretches of a part; the first one is never a number, but may be empty. */
function stretches(part: string): readonly string[] {
  const found: string[] = part.match(/\D+|\d+/g) ?? [];
  return /^\d/.test(part) ? ['', ...found] : found;
}

function compareLetters(a: string, b: string): number {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = rankOf(a[index]) - rankOf(b[index]);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** A tilde comes before the end, letters before everything else. */
function rankOf(character: string | undefined): number {
  if (character === undefined) return 0;
  if (character === '~') return -1;
  return character.charCodeAt(0) + (/[A-Za-z]/.test(character) ? 0 : 256);
}
