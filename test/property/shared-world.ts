import fc from 'fast-check';
import { expect } from 'vitest';
import { AddressSpace, type Binding, Kvm, Mapping, type MemoryRegion, type Vmap } from '../../lib/index.ts';
import { type GuestProgram, type KvmCalls, load, store } from '../../lib/raw.ts';
import { type End, NOWHERE, type OtherUsers } from './other-users.ts';
import type { ViewTask } from './worker-user.ts';

const MIB = 2 ** 20;
const PAGE = 4096;
const MEMORIES = 3;
const PLACES = 5;

const index = (below: number) => fc.nat(below - 1);
const where = { memory: index(MEMORIES), offset: fc.nat(MIB - 65), value: index(256) };
const often = <T>(weight: number, fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) => ({
  weight,
  arbitrary: fc.record(fields),
});
const single = fc.oneof(
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
type Single = typeof single extends fc.Arbitrary<infer T> ? T : never;
type Change = Extract<Single, { readonly op: 'add' | 'move' | 'remove' }>;

const isChange = (each: Single): each is Change => ['add', 'move', 'remove'].includes(each.op);

/** What can be done to an address space, and by whom. */
export const operation = fc.oneof(
  { weight: 12, arbitrary: single },
  often(2, { op: fc.constant('others' as const), by: fc.constantFrom('worker', 'process'), ...where }),
  often(2, {
    op: fc.constant('otherView' as const),
    does: fc.constantFrom('view' as const, 'store' as const, 'store' as const, 'flush' as const, 'end view' as const),
    ...where,
  }),
  often(1, {
    op: fc.constant('end' as const),
    who: fc.constantFrom('worker', 'process'),
    how: fc.constantFrom('release', 'kill', 'killWhileWriting'),
    ...where,
  }),
  often(1, {
    op: fc.constant('group' as const),
    changes: fc.array(
      single.filter((each) => isChange(each)),
      { minLength: 1, maxLength: 5, size: 'max' },
    ),
    fails: fc.boolean(),
  }),
);
export type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

interface Where {
  readonly memory: number;
  readonly offset: number;
  readonly value: number;
}

interface View {
  readonly vmap: Vmap;
  /** Where its region began. */
  readonly start: number;
  readonly attached: boolean;
  readonly memory: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** What a group of changes ends with that is to be taken back. */
class Refused extends Error {}

/** An address space with everybody who uses it, a second VM to which it is migrated, and what each memory must hold. */
export class World {
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
  readonly #others: OtherUsers;
  /** Generations as they were told. */
  readonly #told: number[] = [];
  #attached: Binding | undefined;
  /** What the worker's view shows. */
  #viewed: Where | undefined;
  #views: View[] = [];

  constructor(calls: KvmCalls, others: OtherUsers) {
    this.#calls = calls;
    this.#others = others;
    this.#memories = Array.from({ length: MEMORIES }, () => Mapping.memfd(calls, MIB));
    this.#source.bind(this.space);
    this.#vcpu = this.#source.createVcpu();
    this.space.share({ calls });
    this.#binding = this.space.bind();
    this.#source.dirtyPages.start();
    this.space.onChange(({ generation }) => this.#told.push(generation));
    others.use(this.space.token, [this.space.fd, ...this.#memories.map(({ fd }) => fd)]);
  }

  async attach(): Promise<void> {
    this.#attached?.release();
    this.#attached = await AddressSpace.attach(this.#calls, this.space.token);
  }

  async step(operation: Operation): Promise<void> {
    switch (operation.op) {
      case 'add':
      case 'move':
      case 'remove':
        this.#change(operation);
        break;
      case 'write':
        await this.#write(operation.by, operation.memory, operation.offset, operation.value);
        break;
      case 'vmap':
        this.#vmap(operation.attached, operation.memory, operation.offset);
        break;
      case 'attach':
        await this.attach();
        break;
      case 'pass':
        this.pass();
        this.#checkAttachedViews();
        break;
      case 'others':
        await this.#writeByOthers(operation.by, operation);
        break;
      case 'otherView':
        await this.#workerView(operation.does, operation);
        break;
      case 'end':
        await this.#end(operation.who, operation.how, operation);
        break;
      case 'group':
        this.#group(operation.changes, operation.fails);
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
  async end(): Promise<void> {
    for (const name of this.#others.names) await this.#others.end(name, 'release');
    this.#attached?.release();
    this.#binding.release();
    expect(this.space.consumers).toEqual([]);
    expect(this.#told, 'each change is told in order').toEqual(this.#told.toSorted((one, other) => one - other));
    expect(this.#told.at(-1) ?? 0).toBe(this.space.generation);
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
  }

  /** Nothing has the memory any more. */
  expectFree(): void {
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

  /** Makes a change to both VMs. */
  #change(change: Change): void {
    const { memory } = change;
    if (change.op === 'add') this.#add(memory, change.place);
    else if (change.op === 'move') this.#tryAt(change.place, () => this.#move(memory, change.place));
    else {
      this.#regions[memory]?.own.remove();
      this.#regions[memory]?.copy.remove();
      this.#regions[memory] = undefined;
    }
  }

  /** Several changes as one, which are taken back or told with one generation. */
  #group(changes: readonly Change[], fails: boolean): void {
    const { generation } = this.space;
    const told = this.#told.length;
    const before = [...this.#regions];
    const starts = this.space.memoryRegions.map(String);
    try {
      this.space.change(() =>
        this.#target.memory.change(() => {
          for (const change of changes) this.#change(change);
          if (fails) throw new Refused();
        }),
      );
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#regions.splice(0, this.#regions.length, ...before);
      expect(this.space.memoryRegions.map(String)).toEqual(starts);
    }
    const news = new Set(this.#told.slice(told));
    expect([...news], 'a group is one generation').toEqual(news.size === 0 ? [] : [generation + 1]);
    expect(this.space.generation).toBe(generation + news.size);
    if (fails) expect(news.size).toBe(0);
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

  async #writeByOthers(by: string, { memory, offset, value }: Where): Promise<void> {
    const region = this.#regions[memory]?.own;
    if (region === undefined) return;
    const isWritten = await this.#others.write(by as 'worker' | 'process', region.start + offset, value);
    if (isWritten) this.#model[memory]![offset] = value;
  }

  async #end(who: string, how: string, { memory, offset, value }: Where): Promise<void> {
    const region = this.#regions[memory]?.own;
    const wasThere = this.#others.names.includes(who);
    // Another worker takes a second or more to start.
    const gently = who === 'worker' && value > 16 ? 'release' : (how as End);
    const isWritten = await this.#others.end(
      who,
      gently,
      region === undefined ? NOWHERE : region.start + offset,
      value,
    );
    if (isWritten && region !== undefined) this.#wrote(who, region.start, { memory, offset, value });
    if (!wasThere) return;
    const name = who === 'worker' ? 'worker' : 'consumer in C';
    expect(this.space.consumers.map((consumer) => consumer.name)).not.toContain(name);
  }

  /** A process has written its byte; of a worker's 64 some may be there, and some not. */
  #wrote(who: string, start: number, { memory, offset, value }: Where): void {
    const model = this.#model[memory]!;
    if (who === 'process') {
      model[offset] = value;
      return;
    }
    const bytes = this.space.readExact(start + offset, 64);
    for (const [i, byte] of bytes.entries()) {
      if (byte !== value) expect(byte, 'what a killed worker wrote').toBe(model[offset + i]);
    }
    model.set(bytes, offset);
  }

  /** The worker's view: it stays over its memory wherever that moves, until the worker hears of it. */
  async #workerView(does: ViewTask['does'], where: Where): Promise<void> {
    const region = this.#regions[where.memory]?.own;
    if (does === 'view') {
      if (region === undefined) return;
      await this.#others.view({ does, gpa: region.start + where.offset });
      this.#viewed = where;
      return;
    }
    if (does !== 'store') {
      await this.#others.view({ does });
      return;
    }
    if (!(await this.#others.view({ does, value: where.value }))) return;
    const { memory, offset } = this.#viewed!;
    this.#model[memory]!.fill(where.value, offset, offset + 64);
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

  #vmap(attached: boolean, memory: number, offset: number): void {
    const region = this.#regions[memory]?.own;
    if (region === undefined) return;
    const binding = attached ? this.#attached! : this.#binding;
    const vmap = binding.vmap(region.start + offset, 64, { write: true });
    this.#views.push({ vmap, attached, start: region.start, memory, offset, bytes: vmap.bytes });
  }

  #useView(operation: Single & { readonly view: number }): void {
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

  /** When it has looked, no view of another thread's is left over a region that has gone or moved. */
  #checkAttachedViews(): void {
    expect(this.#attached!.regions.length).toBe(this.space.memoryRegions.length);
    for (const { vmap, attached, start, memory } of this.#views) {
      if (attached && vmap.active)
        expect(this.#regions[memory]?.own.start, 'a view is where its region is').toBe(start);
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
