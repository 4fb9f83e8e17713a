import { stripVTControlCharacters } from 'node:util';
import { INIT_FAILURE } from './init-script.ts';

const KEPT_LINES = 200;

/** The last lines of a guest's console, and why the guest gave up if one of them says so. */
export class ConsoleLog {
  private readonly lines: string[] = [];
  private partial = '';
  private reason: string | undefined;

  push(chunk: Buffer): void {
    const parts = (this.partial + chunk.toString('latin1')).split('\n');
    this.partial = (parts.pop() ?? '').slice(-4096);
    for (const part of parts) this.add(part);
  }

  /** The sentence of a kernel panic or of init's failure, once it was printed. */
  get failure(): string | undefined {
    return this.reason;
  }

  last(count: number): string[] {
    const partial = clean(this.partial);
    return [...this.lines, ...(partial === '' ? [] : [partial])].slice(-count);
  }

  private add(part: string): void {
    const line = clean(part);
    if (line === '') return;
    this.lines.push(line);
    if (this.lines.length > KEPT_LINES) this.lines.shift();
    const panic = /Kernel panic - not syncing: (.*)/.exec(line)?.[1];
    const gaveUp = line.startsWith(INIT_FAILURE) ? line.slice(INIT_FAILURE.length).trim() : undefined;
    this.reason ??= panic === undefined ? gaveUp : `the kernel panicked (${panic})`;
  }
}

function clean(line: string): string {
  return stripVTControlCharacters(line).replaceAll('\r', '').trimEnd();
}
