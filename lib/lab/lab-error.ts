/** A failure of the lab itself: one sentence for the user, and where there is one, the guest's last console lines. */
export class LabError extends Error {
  readonly consoleLines: readonly string[];

  constructor(message: string, consoleLines: readonly string[] = []) {
    super(message);
    this.name = 'LabError';
    this.consoleLines = consoleLines;
  }
}

/** The sentence of anything that was thrown; a full disk is named as such, whoever noticed it. */
export function sentenceOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return /ENOSPC|No space left on device/.test(message) ? `the disk is full (${message})` : message;
}
