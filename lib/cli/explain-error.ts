import { hex, KvmError } from '../base/errors.ts';

/** An error as people want to read it: what went wrong, and the numbers; never a stack. */
export function explainError(error: unknown): string {
  if (error instanceof KvmError) return explainKvmError(error);
  if (!(error instanceof Error)) return `thrown: ${String(error)}`;
  const because = error.cause instanceof Error ? `\n  because of ${explainError(error.cause)}` : '';
  return `${error.name}: ${error.message}${because}`;
}

function explainKvmError(error: KvmError): string {
  const { code, syscall, explanation, slot, gpa, size } = error;
  if (explanation === undefined) return `${error.name}: ${error.message}`;
  const numbers = [
    syscall,
    ...(slot === undefined ? [] : [`slot ${slot}`]),
    ...(gpa === undefined ? [] : [`gpa ${hex(gpa)}`]),
    ...(size === undefined ? [] : [`size ${hex(size)}`]),
  ];
  return `${error.name} ${code}: ${explanation}\n  ${numbers.join(', ')}`;
}
