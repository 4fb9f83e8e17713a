/** Steps that are taken back, last first, when one fails. */
export class Undo {
  readonly #steps: (() => void)[] = [];

  try(step: () => void, undo: () => void): void {
    try {
      step();
    } catch (error) {
      this.#takeBack(error);
      throw error;
    }
    this.#steps.push(undo);
  }

  #takeBack(cause: unknown): void {
    for (const undo of this.#steps.reverse()) {
      try {
        undo();
      } catch (error) {
        throw new AggregateError([cause, error], 'A change failed, and taking back its first part failed too');
      }
    }
  }
}
