const RESOLVED = Promise.resolve();

/**
 * Whether something goes on further down this thread's stack. V8 may end that without carrying out any `finally` (Ctrl-C at a
 * prompt, a timeout of node:vm), but nothing on the stack outlives the turn: the next microtask takes the flag down.
 */
export class StackFlag {
  #isUp = false;
  #isWatched = false;

  get isUp(): boolean {
    return this.#isUp;
  }

  raise(): void {
    this.#isUp = true;
    if (this.#isWatched) return;
    this.#isWatched = true;
    RESOLVED.then(() => {
      this.#isWatched = false;
      this.#isUp = false;
    });
  }

  lower(): void {
    this.#isUp = false;
  }
}
