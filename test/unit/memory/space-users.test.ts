import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { AddressSpace, Kvm, type MemoryRegion } from '../../../lib/index.ts';

type SpaceUser = Parameters<AddressSpace['addUser']>[0];

const UNIT = 0x10_0000;

/** Notes what it is asked, after its name, in a list of all; `refuses` one kind of it. */
class User implements SpaceUser {
  closed = false;
  refuses = '';
  readonly #asked: string[];
  readonly #name: string;

  constructor(asked: string[], name: string) {
    this.#asked = asked;
    this.#name = name;
  }

  #note(what: string, details = ''): void {
    this.#asked.push(`${this.#name} ${what}${details}`);
    if (this.refuses === what) throw new Error(`${this.#name} refuses`);
  }

  add({ gpa }: MemoryRegion): void {
    this.#note('add', ` ${gpa}`);
  }

  remove({ gpa }: MemoryRegion): void {
    this.#note('remove', ` ${gpa}`);
  }

  move(_region: MemoryRegion, from: number, to: number): void {
    this.#note('move', ` ${from} ${to}`);
  }

  setReadOnly(_region: MemoryRegion, readOnly: boolean): void {
    this.#note('setReadOnly', ` ${readOnly}`);
  }

  concluded(): void {
    this.#note('concluded');
  }

  release(): void {
    this.#note('release');
  }
}

function setUp() {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const asked: string[] = [];
  const [a, b] = [new User(asked, 'a'), new User(asked, 'b')] as const;
  const askedBy = (change: () => unknown): string[] => {
    asked.length = 0;
    change();
    return [...asked];
  };
  const mapping = kvm.mapAnonymous(UNIT);
  return { kvm, space, a, b, askedBy, mapping };
}

describe('those who follow an address space', () => {
  it('make each change one after the other, and hear that it is so for good', () => {
    const { space, a, b, askedBy, mapping } = setUp();
    space.addUser(a);
    space.addUser(b);
    let region: MemoryRegion;
    const all = (what: string): string[] => [`a ${what}`, `b ${what}`, 'a concluded', 'b concluded'];
    expect(
      askedBy(() => {
        region = space.addRam(0, mapping);
      }),
    ).toEqual(all('add 0'));
    expect(askedBy(() => region.move(UNIT))).toEqual(all(`move 0 ${UNIT}`));
    expect(askedBy(() => region.move(UNIT))).toEqual([]);
    expect(askedBy(() => region.setReadOnly(true))).toEqual(all('setReadOnly true'));
    expect(askedBy(() => region.setReadOnly(true))).toEqual([]);
    expect(askedBy(() => region.remove())).toEqual(all(`remove ${UNIT}`));
    expect(askedBy(() => region.remove())).toEqual([]);
    expect(mapping.pins).toBe(0);
  });

  it('take back what the next one refuses, and hear that this is so for good', () => {
    const { space, a, b, askedBy, mapping } = setUp();
    space.addUser(a);
    space.addUser(b);
    const refused = (what: string, change: () => unknown): string[] => {
      b.refuses = what;
      const asked = askedBy(() => expect(change).toThrow('b refuses'));
      b.refuses = '';
      return asked;
    };
    const end = ['a concluded', 'b concluded'];
    expect(refused('add', () => space.addRam(0, mapping))).toEqual(['a add 0', 'b add 0', 'a remove 0', ...end]);
    expect(mapping.pins).toBe(0);
    const region = space.addRam(0, mapping);
    const back = (there: string, again: string): string[] => [`a ${there}`, `b ${there}`, `a ${again}`, ...end];
    expect(refused('move', () => region.move(UNIT))).toEqual(back(`move 0 ${UNIT}`, `move ${UNIT} 0`));
    const readOnly = back('setReadOnly true', 'setReadOnly false');
    expect(refused('setReadOnly', () => region.setReadOnly(true))).toEqual(readOnly);
    expect(refused('remove', () => region.remove())).toEqual(back('remove 0', 'add 0'));
    expect([region.gpa, region.readOnly, [...space.regions()].length, mapping.pins]).toEqual([0, false, 1, 1]);
  });

  it('get what is there when they come, or nothing of it, and give it back when they go', () => {
    const { space, a, b, askedBy, mapping } = setUp();
    space.addRam(0, mapping);
    space.addRam(UNIT, mapping);
    expect(askedBy(() => space.addUser(a))).toEqual(['a add 0', `a add ${UNIT}`]);
    b.refuses = 'add';
    expect(askedBy(() => expect(() => space.addUser(b)).toThrow('b refuses'))).toEqual(['b add 0', 'b concluded']);
    expect(space.users).toEqual([a]);
    expect(askedBy(() => space.removeUser(b))).toEqual([]);
    expect(askedBy(() => space.removeUser(a))).toEqual(['a remove 0', `a remove ${UNIT}`, 'a release']);
    expect(space.users).toEqual([]);
    space.addUser(a);
    a.closed = true;
    expect(space.users).toEqual([]);
    expect(askedBy(() => space.addRam(4 * UNIT, mapping))).toEqual([]);
  });

  it('have stores to a read-only region answered that lie inside it', () => {
    const { space, mapping } = setUp();
    const stored: unknown[] = [];
    space.addRam(0, mapping, { readOnly: true, onStore: (...store) => void stored.push(store) });
    expect(() => space.addRam(UNIT, mapping, { onStore: 5 as never })).toThrow('"options.onStore"');
    expect(space.answerGuest(UNIT - 4, Uint8Array.of(1, 2, 3, 4), true)).toBe(true);
    expect(space.answerGuest(UNIT - 3, Uint8Array.of(1, 2, 3, 4), true)).toBe(false);
    expect(space.answerGuest(UNIT, Uint8Array.of(1), true)).toBe(false);
    expect(space.answerGuest(0, new Uint8Array(1), false)).toBe(false);
    expect(stored).toEqual([[UNIT - 4, 0x0403_0201, 4]]);
  });

  it('are told of changes by functions', () => {
    const { space } = setUp();
    expect(() => space.onChange(5 as never)).toThrow('"callback"');
  });

  it('may leave out what they have no use for', () => {
    const { space, mapping } = setUp();
    const plain: SpaceUser = { closed: false, add() {}, remove() {}, move() {}, setReadOnly() {} };
    space.addUser(plain);
    space.addRam(0, mapping).remove();
    const device = space.addMmio(0, 8, {});
    device.move(16);
    device.remove();
    const refuses: SpaceUser = {
      ...plain,
      add: () => {
        throw new Error('refused by a plain user');
      },
    };
    space.addRam(0, mapping);
    expect(() => space.addUser(refuses)).toThrow('refused by a plain user');
    space.removeUser(plain);
    expect(space.users).toEqual([]);
  });

  it('are forgotten once the collector took them', () => {
    const { space, a, askedBy, mapping } = setUp();
    space.addUser(a);
    const collected = vi.spyOn(WeakRef.prototype, 'deref').mockReturnValue(undefined);
    onTestFinished(() => void collected.mockRestore());
    expect(askedBy(() => space.addRam(0, mapping))).toEqual([]);
    collected.mockRestore();
    expect(space.users).toEqual([]);
  });

  it('keep its regions when it is closed, but for those that only have a say', () => {
    const { space, a, mapping } = setUp();
    space.addRam(0, mapping);
    space.addUser(a);
    expect(space.closed).toBe(false);
    space.close();
    expect([space.closed, mapping.pins]).toEqual([true, 1]);
    const closed = (syscall: string) => expect.objectContaining({ code: 'EBADF', syscall });
    const [region] = [...space.regions()] as [MemoryRegion];
    expect(() => space.addRam(UNIT, mapping)).toThrow(closed('addRam'));
    expect(() => space.addDevice(UNIT, mapping)).toThrow(closed('addDevice'));
    expect(() => space.addMmio(UNIT, 8, {})).toThrow(closed('addMmio'));
    expect(() => region.move(UNIT)).toThrow(closed('change region'));
    expect(() => region.setReadOnly(true)).toThrow(closed('change region'));
    expect(() => space.addUser(a)).toThrow(closed('bind'));
    space.removeUser(a);
    expect([mapping.pins, [...space.regions()]]).toEqual([0, []]);

    const other = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    other.addRam(0, mapping);
    other.addUser({ closed: false, onlyChecks: true, add() {}, remove() {}, move() {}, setReadOnly() {} });
    other.close();
    expect([mapping.pins, [...other.regions()]]).toEqual([0, []]);
  });

  it('make several changes each as it is asked for, and hear once that all are so for good', () => {
    const { space, a, askedBy, mapping } = setUp();
    space.addUser(a);
    expect(
      askedBy(() =>
        space.change(() => {
          space.addRam(0, mapping).move(UNIT);
        }),
      ),
    ).toEqual(['a add 0', `a move 0 ${UNIT}`, 'a concluded']);
    const [region] = [...space.regions()] as [MemoryRegion];
    const asked = askedBy(() =>
      expect(() =>
        space.change(() => {
          region.setReadOnly(true);
          region.remove();
          throw new Error('not so');
        }),
      ).toThrow('not so'),
    );
    expect(asked).toEqual([
      'a setReadOnly true',
      `a remove ${UNIT}`,
      `a add ${UNIT}`,
      'a setReadOnly false',
      'a concluded',
    ]);
    expect(() => space.change(() => Promise.resolve())).toThrow(
      /Expected no promise to be returned from callback but got an instance of Promise/,
    );
    expect([...space.regions()]).toEqual([region]);
  });
});

it('a change may have as many parts as there is room for, in another one as well', () => {
  const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
  const region = space.addRam(0, Kvm.open({ backend: 'emulated', arch: 'x86_64' }).mapAnonymous(4096));
  const parts = 140_000;
  let told = 0;
  using _changes = space.onChange(() => void told++);
  space.change(() => {
    space.change(() => {
      for (let part = 1; part <= parts; part++) region.move((part % 2) * 4096);
    });
  });
  expect([told, space.generation, region.gpa]).toEqual([parts, 2, 0]);
});
