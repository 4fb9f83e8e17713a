import { parseArgs } from 'node:util';
import type { Migration } from './guest/migrate-hpt.ts';
import { LabError, sentenceOf } from './lab-error.ts';
import { runInLab } from './run-in-lab.ts';
import { selectVariants } from './variants.ts';

// node out/test/lab/migrate.js [--kernel 6.12|6.1]: moves a running ppc64 guest to another VM of the real kernel, and
// to the emulated kernel, in the labs; fails where anything is lost on the way.

const { values } = parseArgs({ options: { kernel: { type: 'string' } } });
const variants = selectVariants('ppc64', values.kernel) ?? [];
if (variants.length === 0) {
  console.error(`There is no ppc64 lab with kernel ${values.kernel}.`);
  process.exitCode = 2;
}
for (const variant of variants) {
  try {
    const result = await runInLab(variant, {
      script: 'test/lab/guest/migrate-hpt.js',
      onProgress: (line) => console.error(`${variant.id}  ${line}`),
    });
    for (const migration of result as unknown as readonly Migration[]) {
      console.log(`${variant.id} ${JSON.stringify(migration)}`);
      const { differences, findings, pages, ranOn, changed } = migration;
      if (differences + findings + pages > 0 || !ranOn || changed === 0) throw new LabError('something was lost');
    }
  } catch (error) {
    for (const line of error instanceof LabError ? error.consoleLines : []) console.error(`  | ${line}`);
    console.error(`${variant.id}: ${sentenceOf(error)}`);
    process.exitCode = 1;
  }
}
