/**
 * The IPTE interlock: while the host walks a guest's translation tables, the guest must not invalidate entries and have
 * the frames reused. Host walks hold it together, guest invalidations (IPTE, IDTE, CSPG) exclude them. Both forms work
 * on shared memory, so that vCPUs and walkers may be in different threads.
 */

/** What the two forms have in common. Waiting blocks the thread. */
export interface IpteLock {
  /** The memory that the threads of a VM share; another thread's lock is made over the same. */
  readonly shared: SharedArrayBuffer;
  /** Before a host walk; several may be under way. Waits for the end of guest invalidations. */
  lock(): void;
  unlock(): void;
  /** Before a guest's invalidation: false while a host walk is under way, and the instruction has to be tried again. */
  tryInvalidate(): boolean;
  invalidated(): void;
}

/** Bytes of shared memory that either form needs. */
export const IPTE_LOCK_BYTES = 16;

/** Index of the word that is bumped and notified whenever somebody lets go; the waiters sleep on it. */
const RELEASES = 2;
/** Sleeping ends after this even if a notification was missed, which can only cost time. */
const PATIENCE_MS = 10;

/** The control word: k, kh, one of kh, kg. */
const K = 1n << 63n;
const KH = 0x7fff_ffff_0000_0000n;
const ONE_KH = 1n << 32n;
const KG = 0xffff_ffffn;

/** Words of the simple form: k; and the number of hosts with the mutex's bit. */
const CONTROL = 0;
const HOSTS = 1;
const MUTEX = 1 << 30;

function waitForRelease(words: Int32Array, seen: number): void {
  Atomics.wait(words, RELEASES, seen, PATIENCE_MS);
}

function released(words: Int32Array): void {
  Atomics.add(words, RELEASES, 1);
  Atomics.notify(words, RELEASES);
}

/**
 * With the SIIF facility: a control word in the system-control area, k (a host holds it), kh (how many hosts) and kg (how
 * many guest CPUs invalidate). Guests count in kg by themselves.
 */
export class SiifIpteLock implements IpteLock {
  readonly shared: SharedArrayBuffer;
  readonly #control: BigInt64Array;
  readonly #words: Int32Array;

  constructor(shared = new SharedArrayBuffer(IPTE_LOCK_BYTES)) {
    this.shared = shared;
    this.#control = new BigInt64Array(shared, 0, 1);
    this.#words = new Int32Array(shared);
  }

  lock(): void {
    for (;;) {
      const seen = Atomics.load(this.#words, RELEASES);
      const old = BigInt.asUintN(64, Atomics.load(this.#control, 0));
      if ((old & KG) === 0n) {
        if (this.#swap(old, (old | K) + ONE_KH)) return;
      } else waitForRelease(this.#words, seen);
    }
  }

  unlock(): void {
    for (;;) {
      const old = BigInt.asUintN(64, Atomics.load(this.#control, 0));
      const fewer = old - ONE_KH;
      if (this.#swap(old, (fewer & KH) === 0n ? fewer & ~K : fewer)) break;
    }
    released(this.#words);
  }

  tryInvalidate(): boolean {
    for (;;) {
      const old = BigInt.asUintN(64, Atomics.load(this.#control, 0));
      if ((old & K) !== 0n) return false;
      if (this.#swap(old, old + 1n)) return true;
    }
  }

  invalidated(): void {
    Atomics.sub(this.#control, 0, 1n);
    released(this.#words);
  }

  #swap(old: bigint, next: bigint): boolean {
    const expected = BigInt.asIntN(64, old);
    return Atomics.compareExchange(this.#control, 0, expected, BigInt.asIntN(64, next)) === expected;
  }
}

/**
 * Without SIIF: only k in the control word, for whoever has it; the hosts count themselves under a mutex of the VM, and
 * the first one takes k, the last one gives it back.
 */
export class SimpleIpteLock implements IpteLock {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(shared = new SharedArrayBuffer(IPTE_LOCK_BYTES)) {
    this.shared = shared;
    this.#words = new Int32Array(shared);
  }

  lock(): void {
    this.#mutexLock();
    if (Atomics.add(this.#words, HOSTS, 1) === MUTEX) {
      for (;;) {
        const seen = Atomics.load(this.#words, RELEASES);
        if (Atomics.compareExchange(this.#words, CONTROL, 0, 1) === 0) break;
        waitForRelease(this.#words, seen);
      }
    }
    this.#mutexUnlock();
  }

  unlock(): void {
    this.#mutexLock();
    if (Atomics.sub(this.#words, HOSTS, 1) === MUTEX + 1) Atomics.store(this.#words, CONTROL, 0);
    this.#mutexUnlock();
  }

  tryInvalidate(): boolean {
    return Atomics.compareExchange(this.#words, CONTROL, 0, 1) === 0;
  }

  invalidated(): void {
    Atomics.store(this.#words, CONTROL, 0);
    released(this.#words);
  }

  #mutexLock(): void {
    for (;;) {
      const seen = Atomics.load(this.#words, RELEASES);
      const old = Atomics.load(this.#words, HOSTS);
      if ((old & MUTEX) === 0 && Atomics.compareExchange(this.#words, HOSTS, old, old | MUTEX) === old) return;
      waitForRelease(this.#words, seen);
    }
  }

  #mutexUnlock(): void {
    Atomics.and(this.#words, HOSTS, ~MUTEX);
    released(this.#words);
  }
}
