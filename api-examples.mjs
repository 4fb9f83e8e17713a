import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const docs = join(dirname(fileURLToPath(import.meta.url)), 'docs');

/** Lines of code of docs/by-example*.md, by the words of the heading that they stand under. */
const sections = readdirSync(docs)
  .filter((file) => /^by-example.*\.md$/.test(file))
  .flatMap((file) => readFileSync(join(docs, file), 'utf8').split(/^## /m).slice(1))
  .map((text) => ({
    words: text.split('\n', 1)[0].split(/\W+/),
    lines: [...text.matchAll(/^```ts\n(.*?)^```$/gms)]
      .flatMap(([, code]) => code.split('\n'))
      .filter((line) => line !== '' && !line.startsWith('import ')),
  }));

/**
 * The line that calls a method, under the heading of one of these classes, the first that has one.
 *
 * @param {readonly string[]} classes its own, and those that this inherits from
 * @param {string} name
 * @returns {string | undefined}
 */
export function exampleOfMethod(classes, name) {
  for (const each of classes) {
    const line = lineOf(new RegExp(`\\.${name}\\b`), (words) => words.includes(each));
    if (line !== undefined) return line;
  }
  return undefined;
}

/**
 * The line that calls a function, under a heading of its module; of kvm-bridge, and what it shares with another, under any.
 *
 * @param {string} module such as kvm-bridge/s390x
 * @param {string} name
 * @returns {string | undefined}
 */
export function exampleOfFunction(module, name) {
  const calls = new RegExp(`(?<!\\w)${name}\\(`);
  return lineOf(calls, (words) => words.includes(module.split('/').at(-1))) ?? lineOf(calls, () => true);
}

function lineOf(calls, isMeant) {
  return sections
    .filter(({ words }) => isMeant(words))
    .flatMap(({ lines }) => lines)
    .find((line) => calls.test(line));
}
