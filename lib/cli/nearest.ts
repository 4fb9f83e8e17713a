/** How many letters must be added, taken away, replaced or swapped with their neighbour to make one word of the other. */
function distance(a: string, b: string): number {
  let [before, row]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let least = Math.min(replaced, row[j]! + 1, next[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, before[j - 2]! + 1);
      next.push(least);
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}

/** The known word that was probably meant, if one is near. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  const limit = Math.max(1, Math.floor(word.length / 3));
  const near = [...known]
    .map((candidate) => ({
      candidate,
      far: candidate.startsWith(word) && word !== '' ? 0.5 : distance(word, candidate),
    }))
    // Of a single letter everything would be near.
    .filter(({ far }) => far <= limit && far < word.length)
    .sort((a, b) => a.far - b.far);
  return near[0]?.candidate;
}

/** `; did you mean doctor?`, or nothing. */
export function suggestion(word: string, known: Iterable<string>): string {
  const meant = nearest(word, known);
  return meant === undefined ? '' : `; did you mean ${meant}?`;
}
