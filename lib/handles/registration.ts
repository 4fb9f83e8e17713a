import { inspect } from 'node:util';

/** Something that was registered with a VM, and is taken back by closing. Idempotent; where that fails, it is still there, and can be closed again. */
export class Registration {
  /** What is registered, in words. */
  readonly #what: string;
  #undo: (() => void) | undefined;

  constructor(what: string, undo: () => void) {
    this.#what = what;
    this.#undo = undo;
  }

  get closed(): boolean {
    return this.#undo === undefined;
  }

  close(): void {
    const undo = this.#undo;
    this.#undo = undefined;
    try {
      undo?.();
    } catch (error) {
      this.#undo = undo;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [inspect.custom](): string {
    return `Registration of ${this.#what}${this.closed ? ' (closed)' : ''}`;
  }
}
