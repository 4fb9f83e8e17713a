import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { packageRoot } from '../../backends/package-root.ts';
import type { ReportData } from './data.ts';

/** The page without data, as the build leaves it. */
export function pageTemplate(): string {
  const path = join(packageRoot()!, 'dist/cli/report.html');
  if (!existsSync(path)) throw new Error(`${path} is not there: npm run build`);
  return readFileSync(path, 'utf8');
}

/** One page that needs nothing else: the data is in it, gzipped, as text. */
export function html(template: string, data: ReportData): string {
  const text = gzipSync(JSON.stringify(data)).toString('base64');
  return template.replace('/*DATA*/', () => text);
}
