import { readdirSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { AddressSpace, type Binding, Kvm, Mapping, type MemoryRegion, type Vmap } from '../../lib/index.ts';
import { type GuestProgram, type KvmCalls, load, loadNative, store } from '../../lib/raw.ts';

const MIB = 2 ** 20;
const PAGE = 4096;
const MEMORIES = 3;
const PLACES = 5;
const native = loadNative();

const index = (below: number) => fc.nat(below - 1);
const where = { memory: index(MEMORIES), offset: fc.nat(MIB - 65), value: index(256) };
const often = <T>(weight: number, fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) => ({
  weight,
  arbitrary: fc.record(fields),
});
const operation = fc.oneof(
  often(3, { op: fc.constant('add' as const), memory: index(MEMORIES), place: index(PLACES) }),
  often(3, { op: fc.constant('move' as const), memory: index(MEMORIES), place: index(PLACES) }),
  often(1, { op: fc.constant('remove' as const), memory: index(MEMORIES) }),
  fc.record({
    op: fc.constant('write' as const),
    by: fc.constantFrom('owner', 'binding', 'attached', 'guest'),
    ...where,
  }),
  fc.record({
    op: fc.constant('write' as const),
    by: fc.constantFrom('owner', 'binding', 'attached', 'guest'),
    ...where,
  }),
  often(3, { op: fc.constant('vmap' as const), attached: fc.boolean(), ...where }),
  often(4, { op: fc.constant('store' as const), view: fc.nat(), value: index(256) }),
  often(1, { op: fc.constant('flush' as const), view: fc.nat() }),
  often(1, { op: fc.constant('release' as const), view: fc.nat() }),
  often(1, { op: fc.constant('attach' as const) }),
  often(2, { op: fc.constant('pass' as const) }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

interface View {
  readonly vmap: Vmap;
  readonly memory: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** An address space with everybody who uses it, a second VM to which it is migrated, and what each memory must hold. */
class World {
  readonly space = new AddressSpace({ littleEndian: true, pageSize: PAGE });
  readonly #calls: KvmCalls;
  readonly #kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  readonly #source = this.#kvm.createVm();
  readonly #target = this.#kvm.createVm();
  readonly #vcpu;
  readonly #memories: readonly Mapping[];
  readonly #model = Array.from({ length: MEMORIES }, () => new Uint8Array(MIB));
  readonly #regions: ({ readonly own: MemoryRegion; readonly copy: MemoryRegion } | undefined)[] = [];
  readonly #binding: Binding;
  #attached: Binding | undefined;
  #views: View[] = [];

  constructor(calls: KvmCalls) {
    this.#calls = calls;
    this.#memories = Array.from({ length: MEMORIES }, () => Mapping.memfd(calls, MIB));
    this.#source.bind(this.space);
    this.#vcpu = this.#source.createVcpu();
    this.space.share({ calls });
    this.#binding = this.space.bind();
    this.#source.dirtyPages.start();
  }

  async attach(): Promise<void> {
    this.#attached?.release();
    this.#attached = await AddressSpace.attach(this.#calls, this.space.token);
  }

  async step(operation: Operation): Promise<void> {
    switch (operation.op) {
      case 'add':
        this.#add(operation.memory, operation.place);
        break;
      case 'move':
        this.#tryAt(operation.place, () => this.#move(operation.memory, operation.place));
        break;
      case 'remove':
        this.#regions[operation.memory]?.own.remove();
        this.#regions[operation.memory]?.copy.remove();
        this.#regions[operation.memory] = undefined;
        break;
      case 'write':
        await this.#write(operation.by, operation.memory, operation.offset, operation.value);
        break;
      case 'vmap':
        this.#vmap(operation.attached ? this.#attached! : this.#binding, operation.memory, operation.offset);
        break;
      case 'attach':
        await this.attach();
        break;
      case 'pass':
        this.pass();
        break;
      default:
        this.#useView(operation);
    }
    this.#checkViews();
  }

  pass(): void {
    const { memory } = this.#target;
    for (const { gfn, npages } of this.#source.dirtyPages.collect().runs()) {
      memory.writeExact(gfn * PAGE, this.space.readExact(gfn * PAGE, npages * PAGE));
    }
  }

  /** Everybody lets go, and a last pass is made: the target is what the model is. */
  end(): void {
    this.#attached?.release();
    this.#binding.release();
    expect(this.#views.every(({ vmap, bytes }) => !vmap.active && bytes.length === 0)).toBe(true);
    this.pass();
    for (const [i, region] of this.#regions.entries()) {
      if (region === undefined) continue;
      const [source, target] = [this.space, this.#target.memory].map((memory) => memory.readExact(region.own.gpa, MIB));
      expect(Buffer.compare(source!, this.#model[i]!), `memory ${i} holds what was written`).toBe(0);
      expect(Buffer.compare(target!, this.#model[i]!), `memory ${i} was migrated`).toBe(0);
    }
  }

  close(): void {
    for (const vm of [this.#source, this.#target]) vm.close();
    this.space.close();
    for (const memory of this.#memories) memory.close();
    this.#kvm.close();
    expect(this.#memories.map(({ fd, pins }) => [fd, pins])).toEqual(this.#memories.map(() => [-1, 0]));
  }

  #tryAt(place: number, change: () => void): void {
    try {
      change();
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'EEXIST') throw error;
      expect(this.space.memoryRegions.map(({ start }) => start)).toContain(place * MIB);
    }
  }

  #add(i: number, place: number): void {
    if (this.#regions[i] !== undefined) return;
    this.#tryAt(place, () => {
      const own = this.space.addRam(place * MIB, this.#memories[i]!);
      const copy = this.#target.memory.addRam(place * MIB, this.#kvm.mapAnonymous(MIB));
      // A region that is new is copied as a whole.
      this.#target.memory.writeExact(place * MIB, this.space.readExact(place * MIB, MIB));
      this.#regions[i] = { own, copy };
    });
  }

  #move(i: number, place: number): void {
    this.#regions[i]?.own.move(place * MIB);
    this.#regions[i]?.copy.move(place * MIB);
  }

  async #write(by: string, i: number, offset: number, value: number): Promise<void> {
    const region = this.#regions[i]?.own;
    if (region === undefined) return;
    const gpa = region.start + offset;
    if (by === 'guest') {
      this.#kvm.emulated!.loadGuest(this.#vcpu.fd, storing(gpa, value));
      await this.#vcpu.run();
      this.#model[i]![offset] = value;
      return;
    }
    const bytes = new Uint8Array(1 + (value % 64)).fill(value);
    if (by === 'owner') this.space.writeExact(gpa, bytes);
    else (by === 'binding' ? this.#binding : this.#attached!).copyTo(gpa, bytes);
    this.#model[i]!.set(bytes, offset);
  }

  #vmap(binding: Binding, memory: number, offset: number): void {
    const region = this.#regions[memory]?.own;
    if (region === undefined) return;
    const vmap = binding.vmap(region.start + offset, 64, { write: true });
    this.#views.push({ vmap, memory, offset, bytes: vmap.bytes });
  }

  #useView(operation: Operation & { readonly view: number }): void {
    const view = this.#views[operation.view % this.#views.length];
    if (view === undefined || !view.vmap.active) return;
    if (operation.op === 'release') view.vmap.release();
    else if (operation.op === 'flush') view.vmap.flush();
    // A view of another thread's may be revoked already, which is found out when it looks.
    else if (operation.op === 'store' && view.bytes.length > 0) {
      view.bytes.fill(operation.value);
      this.#model[view.memory]!.fill(operation.value, view.offset, view.offset + 64);
    }
  }

  /** No view shows anything but the memory it was made of; those of the owner's thread are gone as soon as that is. */
  #checkViews(): void {
    this.#views = this.#views.filter(({ vmap, memory, offset, bytes }) => {
      if (!vmap.active) {
        expect(bytes.length).toBe(0);
        return false;
      }
      const wanted = this.#model[memory]!.subarray(offset, offset + 64);
      expect(Buffer.compare(bytes, wanted), 'a view shows its memory').toBe(0);
      return true;
    });
  }
}

function* storing(gpa: number, value: number): GuestProgram {
  yield store(gpa, 1, BigInt(value));
  yield load(0xd000_0000, 4);
}

it('whatever happens to a shared address space, the target of a migration is the source, no view shows other memory, and nothing leaks', async (test) => {
  if (!('calls' in native)) return test.skip(native.reason);
  const files = () => readdirSync('/proc/self/fd').length;
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 60, maxLength: 150, size: 'max' }), async (operations) => {
      const before = files();
      const world = new World(native.calls);
      await world.attach();
      try {
        for (const each of operations) await world.step(each);
        world.end();
      } finally {
        world.close();
      }
      expect(files()).toBe(before);
    }),
    { numRuns: 12 },
  );
}, 120_000);
