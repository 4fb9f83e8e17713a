/** Steps that are taken back, last first, when one fails. */
export class Undo {
  readonly #steps: (() => void)[] = [];
  readonly #onEnd: (() => void) | undefined;

  /** @param onEnd called when they were taken back */
  constructor(onEnd?: () => void) {
    this.#onEnd = onEnd;
  }

  try(step: () => void, undo: () => void): void {
    try {
      step();
    } catch (error) {
      this.takeBack(error);
      throw error;
    }
    this.add(undo);
  }

  /** A step was taken. */
  add(undo: () => void): void {
    this.#steps.push(undo);
  }

  /** Takes all back that can be. @throws AggregateError with the cause, and with what can't */
  takeBack(cause: unknown): void {
    const failures: unknown[] = [];
    for (const undo of this.#steps.splice(0).reverse()) {
      try {
        undo();
      } catch (error) {
        failures.push(error);
      }
    }
    this.#onEnd?.();
    if (failures.length === 0) return;
    throw new AggregateError([cause, ...failures], 'A change failed, and taking back its first part failed too');
  }
}
