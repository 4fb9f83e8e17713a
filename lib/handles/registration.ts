/** Something that was registered with a VM, and is taken back by closing. Idempotent. */
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
    undo?.();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
