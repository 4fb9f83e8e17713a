import { describe, expect, it } from 'vitest';
import { replCommand } from '../../../lib/cli/repl/index.ts';
import { ExitCounts } from '../../../lib/cli/top/exit-counts.ts';
import { lookAsText } from '../../../lib/cli/top/look.ts';
import { Meter } from '../../../lib/cli/top/meter.ts';
import { GUEST_MEMFD_FLAG, Kvm } from '../../../lib/index.ts';
import { fakeIo } from './fake-io.ts';

/** An emulated guest that stores into `pages` pages, and writes a port after each. */
function measured(pages: number) {
  const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', trace: () => {} });
  const exits = new ExitCounts(kvm.calls);
  const vm = kvm.createVm();
  vm.memory.addRam(0, kvm.mapAnonymous(1 << 20), { name: 'low' });
  vm.memory.addRam(1 << 30, kvm.mapAnonymous(1 << 20));
  const vcpu = vm.createVcpu();
  kvm.emulated!.loadGuest(
    vcpu.fd,
    (function* () {
      for (let page = 0; page < pages; page++) {
        yield { op: 'store', address: page * 4096, size: 1, value: 1n };
        yield { op: 'out', port: 0x10, size: 1, value: 0n };
      }
    })(),
  );
  return { kvm, vm, vcpu, exits };
}

/** The cells of a row. */
const row = (text: string, name: string): string[] | undefined =>
  text
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/))
    .find(([first]) => first === name);

describe('what a guest does', () => {
  it('is counted: exits by reason, and dirty pages by region', () => {
    const { vcpu, ...all } = measured(8);
    using meter = new Meter(all);
    for (let i = 0; i < 8; i++) expect(vcpu.runSync().reason).toBe('IO');
    expect(vcpu.runSync().reason).toBe('HLT');
    const text = lookAsText(meter.look());
    expect(text).toMatch(/^0 of 1 vCPU in its guest, /);
    expect(row(text, 'IO')?.[2]).toBe('8');
    expect(row(text, 'HLT')?.[2]).toBe('1');
    // 8 of 256 pages.
    expect(row(text, 'low')?.at(-1)).toBe('3.13%');
    expect(row(text, '0x40000000')?.slice(1)).toEqual(['0', '0 bytes/s', '0.00%']);
    expect(row(lookAsText(meter.look()), 'IO')).toBeUndefined();
  });

  it('is looked at from when there is memory', () => {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', trace: () => {} });
    const vm = kvm.createVm();
    using meter = new Meter({ kvm, vm, exits: new ExitCounts(kvm.calls) });
    expect(lookAsText(meter.look())).toContain('there is no memory');
    vm.memory.addRam(0, kvm.mapAnonymous(1 << 20));
    expect(lookAsText(meter.look())).toContain('from now on');
    vm.memory.writeU8(0x3000, 1);
    expect(row(lookAsText(meter.look()), '0x0')?.at(-1)).toBe('0.39%');
    vm.close();
    expect(lookAsText(meter.look())).toContain('the VM is closed');
  });

  it("leaves others' dirty pages alone", () => {
    const { vcpu, ...all } = measured(1);
    const dirty = all.vm.dirtyPages.start();
    {
      using meter = new Meter(all);
      vcpu.runSync();
      expect(row(lookAsText(meter.look()), 'low')?.at(-1)).toBe('0.00%');
      expect([...dirty.collect().pages()]).toEqual([0]);
      const text = lookAsText(meter.look());
      expect(text).toContain('as the script collects them');
      expect(row(text, 'low')?.at(-1)).toBe('0.39%');
    }
    expect(dirty.started).toBe(true);
    expect([...dirty.collect().pages()]).toEqual([]);
  });

  it("counts others' dirty pages, however many runs of them there are", () => {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
    const vm = kvm.createVm();
    const pages = 280_000;
    vm.memory.addRam(0, kvm.mapAnonymous(pages * 4096), { name: 'low' });
    using meter = new Meter({ kvm, vm, exits: new ExitCounts(kvm.calls) });
    using dirty = vm.dirtyPages.start();
    for (let page = 0; page < pages; page += 2) vm.memory.writeU8(page * 4096, 1);
    dirty.collect();
    expect(row(lookAsText(meter.look()), 'low')?.at(-1)).toBe('50%');
  });

  it('takes no dirty page from who begins to collect meanwhile', () => {
    const { vcpu, ...all } = measured(4);
    const { dirtyPages } = all.vm;
    {
      using meter = new Meter(all);
      vcpu.runSync();
      expect(dirtyPages.started).toBe(false);
      expect(() => dirtyPages.collect()).toThrow(/start/);
      dirtyPages.start();
      expect(dirtyPages.started).toBe(true);
      vcpu.runSync();
      lookAsText(meter.look());
      vcpu.runSync();
      lookAsText(meter.look());
      // Page 0 was written before.
      expect([...dirtyPages.collect().pages()]).toEqual([1, 2]);
      expect(row(lookAsText(meter.look()), 'low')?.at(-1)).toBe('0.78%');
      dirtyPages.stop();
      expect(dirtyPages.started).toBe(false);
      lookAsText(meter.look());
      vcpu.runSync();
      expect(row(lookAsText(meter.look()), 'low')?.at(-1)).toBe('0.39%');
    }
    expect(dirtyPages.started).toBe(false);
    expect(Object.keys(Object.getOwnPropertyDescriptors(dirtyPages))).toEqual([]);
  });

  it('has runs that fail, too, and those on a thread of their own', async () => {
    const { vcpu, ...all } = measured(1);
    using meter = new Meter(all);
    await vcpu.run();
    vcpu.kick();
    await vcpu.run();
    const text = lookAsText(meter.look());
    expect([row(text, 'IO')?.[2], row(text, 'INTR')?.[2]]).toEqual(['1', '1']);
  });
});

describe('a script that is looked at', () => {
  const open = () => {
    const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64', release: '6.18', trace: () => {} });
    const vm = kvm.createVm();
    const ram = kvm.mapAnonymous(1 << 20);
    const region = vm.memory.addRam(0, ram, { name: 'low' });
    return { kvm, vm, ram, region, space: kvm.createAddressSpace() };
  };
  type Script = ReturnType<typeof open>;

  /** What a script may do at any time. */
  const steps: Readonly<Record<string, (script: Script) => unknown>> = {
    'closes the kernel': ({ kvm }) => kvm.close(),
    'closes the VM': ({ vm }) => vm.close(),
    'closes the memory': ({ vm }) => vm.memory.close(),
    'closes the mapping': ({ ram }) => ram.close(),
    'removes a region': ({ region }) => region.remove(),
    'moves a region': ({ region }) => region.move(1 << 28),
    'makes a region read-only': ({ region }) => region.setReadOnly(true),
    'binds other memory': ({ vm, space }) => vm.bind(space),
    'adds a region with a guest_memfd': ({ kvm, vm }) => {
      const flags = GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED;
      const guestMemfd = vm.createGuestMemfd(1 << 20, flags);
      vm.memory.addRam(1 << 30, kvm.mapAnonymous(1 << 20), { guestMemfd });
    },
    'adds a slot by hand': ({ kvm, vm }) => {
      const userspaceAddr = kvm.mapAnonymous(1 << 20).hva;
      vm.setUserMemoryRegion({ slot: 30, guestPhysAddr: 1 << 29, memorySize: 1 << 20, userspaceAddr });
    },
    'makes a vCPU, and closes it': ({ vm }) => vm.createVcpu().close(),
    'has dirty rings': ({ vm }) => vm.enableDirtyRing(4096),
    starts: ({ vm }) => vm.dirtyPages.start(),
    collects: ({ vm }) => vm.dirtyPages.collect(),
    stops: ({ vm }) => vm.dirtyPages.stop(),
  };
  const outcome = (step: (script: Script) => unknown, script: Script): string => {
    try {
      step(script);
      return 'well';
    } catch (error) {
      return (error as { readonly code: string }).code;
    }
  };

  it.each(Object.entries(steps))('may do whatever it could do alone, and breaks no look: %s', (_, first) => {
    for (const second of Object.values(steps)) {
      const alone = open();
      const expected = [outcome(first, alone), outcome(second, alone)];
      for (const isLate of [false, true]) {
        const script = open();
        const exits = new ExitCounts(script.kvm.calls);
        const before = isLate ? [outcome(first, script)] : [];
        using meter = new Meter({ ...script, exits });
        if (!isLate) before.push(outcome(first, script));
        lookAsText(meter.look());
        expect([...before, outcome(second, script)]).toEqual(expected);
        expect(lookAsText(meter.look())).toContain('vCPUs in their guest');
        lookAsText(meter.look());
      }
    }
  });

  it('is looked at wherever its memory is by now', () => {
    const { vm, space, kvm } = open();
    using meter = new Meter({ kvm, vm, exits: new ExitCounts(kvm.calls) });
    space.addRam(1 << 30, kvm.mapAnonymous(1 << 20), { name: 'other' });
    vm.bind(space);
    lookAsText(meter.look());
    vm.memory.writeU8(1 << 30, 1);
    expect(row(lookAsText(meter.look()), 'other')?.at(-1)).toBe('0.39%');
    expect([...vm.dirtyPages.start().collect().pages()]).toEqual([]);
  });
});

describe('.top', () => {
  const piped = async (...lines: string[]) => {
    const io = fakeIo({ input: lines.join('\n') });
    const status = await replCommand(io, { backend: 'emulated', arch: 'x86_64' });
    return { status, out: io.out(), err: io.err() };
  };

  it('tells once in a pipe, and lets the log go', async () => {
    const { status, out } = await piped(
      'vm.memory.addRam(0, kvm.mapAnonymous(4096)); undefined',
      '.top 0.05',
      'vm.dirtyPages.started',
    );
    expect(status).toBe(0);
    expect(out).toMatch(/^0 of 0 vCPUs in their guest, 0 exits a second\n\n {2}region .*\n {2}0x0 .*\nfalse\n$/);
  });

  it.each(['x', '-1', '0', '1e9'])('refuses %s seconds', async (seconds) => {
    const { status, err } = await piped(`.top ${seconds}`);
    expect(status).toBe(1);
    expect(err).toContain(`the seconds are a number up to 3600, not ${seconds}`);
  });
});
