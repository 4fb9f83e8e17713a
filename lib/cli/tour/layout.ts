import { wrap } from '../../base/text.ts';
import type { Style } from '../io.ts';
import { type Act, LABELS, type Label } from './act.ts';

const GAP = 2;

/** The acts side by side, or one below the other where the terminal is too narrow for that. */
export function sideBySide(acts: readonly Act[], style: Style, columns: number): string {
  const labels = LABELS.filter((label) => acts.some(({ rows }) => rows.has(label)));
  const cells = acts.map((act) => [act.arch, act.kernel, ...labels.map((label) => act.rows.get(label) ?? '-')]);
  const head = ['', 'kernel', ...labels];
  const widths = [head, ...cells].map((column) => Math.max(...column.map((text) => text.length)));
  const total = widths.reduce((sum, width) => sum + width + GAP, 0);
  if (total > columns) return acts.map((act) => below(act, labels, style, columns)).join('\n');
  const lines = head.map((label, row) => {
    const texts = [
      style.dim(label.padEnd(widths[0]!)),
      ...cells.map((column, i) => column[row]!.padEnd(widths[i + 1]!)),
    ];
    const line = `${' '.repeat(GAP)}${texts.join(' '.repeat(GAP))}`.trimEnd();
    return row === 0 ? style.bold(line) : line;
  });
  return `${lines.join('\n')}\n`;
}

function below({ arch, kernel, rows }: Act, labels: readonly Label[], style: Style, columns: number): string {
  const width = Math.max(...labels.map((label) => label.length));
  const lines = labels.flatMap((label) => {
    const [first = '', ...rest] = wrap(rows.get(label) ?? '-', Math.max(columns - width - 2 * GAP, 10));
    const indent = ' '.repeat(width + 2 * GAP);
    return [`  ${style.dim(label.padEnd(width))}  ${first}`, ...rest.map((line) => indent + line)];
  });
  return `${style.bold(`${arch}, ${kernel}`)}\n${lines.join('\n')}\n`;
}
