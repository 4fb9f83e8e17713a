import type { Vm } from '../../handles/vm.ts';
import { DirtyPages, type DirtyRun } from '../../memory/dirty-pages.ts';

const { started } = Object.getOwnPropertyDescriptors(DirtyPages.prototype);

/**
 * The dirty pages of a VM for somebody who only looks on. As long as nobody else collects them they are collected here; whoever starts to
 * gets a log of his own, as if there had been none, and what he collects is seen here. For a VM that belongs to one session: its
 * `dirtyPages` is changed until this is disposed of.
 */
export class DirtyMeter {
  readonly #vm: Vm;
  readonly #seen: DirtyRun[] = [];
  #isOurs = false;

  constructor(vm: Vm) {
    this.#vm = vm;
    const pages = vm.dirtyPages;
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
      this.#seen.push(...pages.runs());
      return pages;
    });
    Object.defineProperty(pages, 'started', { get: () => !this.#isOurs && this.#isOn, configurable: true });
  }

  /** Whether somebody else collects. */
  get isOthers(): boolean {
    return !this.#isOurs && this.#isOn;
  }

  /** Begins, if there is memory and nobody else has. @returns whether pages are looked at, by whomever */
  start(): boolean {
    if (this.#isOn) return true;
    if (this.#vm.closed || [...this.#vm.memory.regions()].length === 0) return false;
    DirtyPages.prototype.start.call(this.#vm.dirtyPages);
    this.#isOurs = true;
    return true;
  }

  /** What became dirty since the last time: of others' pages what they collected since. */
  take(): DirtyRun[] {
    if (this.#isOurs) return DirtyPages.prototype.collect.call(this.#vm.dirtyPages).runs();
    return this.#seen.splice(0);
  }

  [Symbol.dispose](): void {
    if (!this.#vm.closed) this.#leave();
    for (const name of ['start', 'stop', 'collect', 'started']) Reflect.deleteProperty(this.#vm.dirtyPages, name);
  }

  get #isOn(): boolean {
    return started.get?.call(this.#vm.dirtyPages) === true;
  }

  /** Leaves the log to others, who find none. */
  #leave(): void {
    if (!this.#isOurs) return;
    this.#isOurs = false;
    DirtyPages.prototype.stop.call(this.#vm.dirtyPages);
  }
}
