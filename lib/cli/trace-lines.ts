import { type OutputStream, styleFor } from './io.ts';

/** Writes trace lines to a stream, dimmed on a terminal. */
export function traceTo(stream: OutputStream, env: NodeJS.ProcessEnv): (line: string) => void {
  const style = styleFor(stream, env);
  return (line) => {
    stream.write(`${style.dim(line)}\n`);
  };
}
