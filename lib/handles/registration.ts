/** Something that was registered with a VM, and is taken back by closing. Idempotent; where that fails, it is still there, and can be closed again. */
export class Registration {
  #undo: (() => void) | undefined;

  constructor(undo: () => void) {
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
}
