import type { Vm } from '../../handles/vm.ts';
import { DirtyPages, type DirtyRun } from '../../memory/dirty-pages.ts';

const { started } = Object.getOwnPropertyDescriptors(DirtyPages.prototype);

/**
 * The dirty pages of a VM for somebody who only looks on. As long as nobody else collects them they are collected here; whoever starts to
 * gets a log of his own, as if there had been none, and what he collects is seen here. For a VM that belongs to one session: its
 * `dirtyPages` and `createGuestMemfd` are changed until this is disposed of.
 */
export class DirtyMeter {
  readonly #vm: Vm;
  readonly #seen: DirtyRun[] = [];
  /** Those that are changed: the VM has others once it is bound to other memory. */
  #pages: DirtyPages;
  #isOurs = false;
  /** Regions with a guest_memfd are coming, which are refused while there is a log. */
  #mayNot = false;

  constructor(vm: Vm) {
    this.#vm = vm;
    this.#pages = vm.dirtyPages;
    this.#change();
    const create = vm.createGuestMemfd;
    const value: Vm['createGuestMemfd'] = (...args) => {
      const memfd = create.apply(vm, args);
      this.#mayNot = true;
      this.#leave();
      return memfd;
    };
    Object.defineProperty(vm, 'createGuestMemfd', { value, configurable: true });
  }

  /** Whether somebody else collects. */
  get isOthers(): boolean {
    return !this.#isOurs && this.#isOn;
  }

  /**
   * Begins, if there is memory (and no guest_memfd for it) and nobody else has.
   * @returns whether pages are looked at, by whomever
   * @throws KvmError for memory that KVM keeps no log of
   */
  start(): boolean {
    this.#follow();
    if (this.#isOn) return true;
    if (this.#mayNot || this.#vm.closed || [...this.#vm.memory.regions()].length === 0) return false;
    DirtyPages.prototype.start.call(this.#pages);
    this.#isOurs = true;
    return true;
  }

  /** What became dirty since the last time: of others' pages what they collected since. */
  take(): DirtyRun[] {
    this.#follow();
    if (this.#isOurs) return DirtyPages.prototype.collect.call(this.#pages).runs();
    return this.#seen.splice(0);
  }

  [Symbol.dispose](): void {
    if (!this.#vm.closed) this.#leave();
    this.#restore();
    Reflect.deleteProperty(this.#vm, 'createGuestMemfd');
  }

  get #isOn(): boolean {
    return started.get?.call(this.#pages) === true;
  }

  #change(): void {
    const pages = this.#pages;
    const { start, stop, collect } = pages;
    const define = (name: 'start' | 'stop' | 'collect', value: (...args: never[]) => unknown) =>
      Object.defineProperty(pages, name, { value, configurable: true, writable: true });
    define('start', () => {
      this.#leave();
      return start.call(pages);
    });
    define('stop', () => {
      if (!this.#isOurs) stop.call(pages);
    });
    define('collect', (...args: Parameters<DirtyPages['collect']>) => {
      this.#leave();
      collect.apply(pages, args);
      for (const run of pages.runs()) this.#seen.push(run);
      return pages;
    });
    Object.defineProperty(pages, 'started', { get: () => !this.#isOurs && this.#isOn, configurable: true });
  }

  #restore(): void {
    for (const name of ['start', 'stop', 'collect', 'started']) Reflect.deleteProperty(this.#pages, name);
  }

  /** Looks at the dirty pages that the VM has now. */
  #follow(): void {
    if (!this.#vm.closed && this.#vm.dirtyPages !== this.#pages) {
      this.#restore();
      this.#pages = this.#vm.dirtyPages;
      this.#change();
    }
    if (!this.#isOn) this.#isOurs = false;
  }

  /** Leaves the log to others, who find none. */
  #leave(): void {
    if (!this.#isOurs) return;
    this.#isOurs = false;
    DirtyPages.prototype.stop.call(this.#pages);
  }
}
