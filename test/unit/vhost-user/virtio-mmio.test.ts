import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AddressSpace, Kvm, Mapping, UnixListener, type Vcpu, type Vm } from '../../../lib/index.ts';
import { halt, type KvmCalls, load, store } from '../../../lib/raw.ts';
import { BlockDevice, layOut, VhostUserBackEnd, VhostUserFrontEnd, VirtioMmio } from '../../../lib/vhost-user/index.ts';
import { backends } from '../handles/backends.ts';
import { runsGuests } from '../handles/guests.ts';
import { hostCalls } from '../sharing/host.ts';

const MMIO = 0xd000_0000;
const RAM = 0x10_0000;
const CODE = 0x1000;
const RESULTS = 0x2000;
const HEADER = 0x3000;
const DATA = 0x4000;
const STATUS = 0x5000;
const LAYOUT = layOut(0x1_0000, 8);
const DISK = 0x1_0000;
const GSI = 5;
/** An address without memory or handlers. */
const NOTHING = 0xe000_0000;
const KVM_GET_IRQCHIP = 0xc208_ae62;

/** What a guest does with 32 bits: stores them, or loads them and stores them elsewhere. */
type Step = readonly ['store', number, number] | readonly ['load', number, number];

const put = (at: number, value: number): Step => ['store', at, value >>> 0];
const get = (at: number, to: number): Step => ['load', at, to];

function loadSteps(kvm: Kvm, vcpu: Vcpu, memory: AddressSpace, steps: readonly Step[]): void {
  if (kvm.emulated !== undefined) {
    kvm.emulated.loadGuest(
      vcpu.fd,
      (function* () {
        for (const [what, at, value] of steps) {
          if (what === 'store') yield store(at, 4, BigInt(value));
          else yield store(value, 4, (yield load(at, 4)) as bigint);
        }
        yield halt;
      })(),
    );
    return;
  }
  const u32 = (value: number) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
  // 32-bit code: mov eax, imm32 or mov eax, [moffs32]; mov [moffs32], eax; and at the end hlt.
  const code = steps.flatMap(([what, at, value]) =>
    what === 'store' ? [0xb8, ...u32(value), 0xa3, ...u32(at)] : [0xa1, ...u32(at), 0xa3, ...u32(value)],
  );
  memory.writeExact(CODE, Uint8Array.from([...code, 0xf4]));
  const sregs = vcpu.x86_64.getSregs();
  const flat = { ...sregs.ds, base: 0n, limit: 0xffff_ffff, selector: 16, type: 3, s: 1, db: 1, g: 1, present: 1 };
  vcpu.x86_64.setSregs({ cs: { ...flat, selector: 8, type: 11 }, ds: flat, es: flat, ss: flat, cr0: sregs.cr0 | 1n });
  vcpu.x86_64.setRegs({ rip: CODE, rflags: 2 });
}

/** Interrupts that the first interrupt controller has pending: the second byte of its state. */
function pending(vm: Vm): number {
  const chip = new Uint8Array(520);
  vm.ioctl(KVM_GET_IRQCHIP, chip);
  return chip[9]!;
}

/** A driver's way to a disk that runs (virtio 1.2, 3.1.1 and 4.2.3.2). */
const SET_UP: readonly Step[] = [
  get(MMIO, RESULTS),
  get(MMIO + 4, RESULTS + 4),
  get(MMIO + 8, RESULTS + 8),
  put(MMIO + 0x70, 3),
  put(MMIO + 0x14, 1),
  get(MMIO + 0x10, RESULTS + 12),
  put(MMIO + 0x24, 1),
  put(MMIO + 0x20, 1),
  put(MMIO + 0x24, 0),
  put(MMIO + 0x20, 0),
  put(MMIO + 0x70, 11),
  get(MMIO + 0x70, RESULTS + 16),
  put(MMIO + 0x30, 0),
  get(MMIO + 0x34, RESULTS + 20),
  put(MMIO + 0x38, LAYOUT.size),
  put(MMIO + 0x80, LAYOUT.desc),
  put(MMIO + 0x84, 0),
  put(MMIO + 0x90, LAYOUT.avail),
  put(MMIO + 0x94, 0),
  put(MMIO + 0xa0, LAYOUT.used),
  put(MMIO + 0xa4, 0),
  put(MMIO + 0x44, 1),
  put(MMIO + 0x70, 15),
  get(MMIO + 0x100, RESULTS + 24),
];

/** A read of one sector. */
function request(sector: number, index: number): readonly Step[] {
  const descriptor = (i: number, gpa: number, length: number, flags: number, next: number): Step[] => {
    const at = LAYOUT.desc + 16 * i;
    return [put(at, gpa), put(at + 4, 0), put(at + 8, length), put(at + 12, flags | (next << 16))];
  };
  return [
    put(HEADER, 0),
    put(HEADER + 8, sector),
    put(STATUS, 0xff),
    ...descriptor(0, HEADER, 16, 1, 1),
    ...descriptor(1, DATA, 512, 3, 2),
    ...descriptor(2, STATUS, 1, 2, 0),
    // Flags 0, index; the ring has head 0 everywhere.
    put(LAYOUT.avail, index << 16),
    put(MMIO + 0x50, 0),
  ];
}

type Options = Parameters<typeof VirtioMmio.attach>[2];

describe.each(backends.filter(runsGuests))('a guest on $name', ({ options }) => {
  // Eventfds of the host, which a back end signals, are the real kernel's.
  const isReal = options.backend === 'native';
  let calls: KvmCalls;
  let folder: string;
  let content: Buffer;
  let file: FileHandle;
  let kvm: Kvm;
  let vm: Vm;
  let vcpu: Vcpu;
  let space: AddressSpace;
  let frontEnd: VhostUserFrontEnd;
  let served: Promise<void>;
  const errors: string[] = [];
  const levels: boolean[] = [];

  beforeEach(async (test) => {
    calls = hostCalls(test);
    folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-mmio-'));
    content = randomBytes(DISK);
    writeFileSync(join(folder, 'image'), content);
    file = await open(join(folder, 'image'), 'r+');
    kvm = Kvm.open(options);
    space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
    const ram = Mapping.memfd(calls, RAM);
    space.addRam(0, ram);
    ram.close();
    vm = kvm.createVm();
    vm.bind(space);
    errors.length = 0;
    levels.length = 0;
  });
  afterEach(async () => {
    frontEnd?.close();
    await served;
    space?.close();
    kvm?.close();
    await file?.close();
    if (folder !== undefined) rmSync(folder, { recursive: true });
  });

  /** A disk that a back end serves, as a device of the VM. */
  async function attached(more: Partial<Options>): Promise<VirtioMmio> {
    const listener = UnixListener.listen(calls, join(folder, 'disk.sock'));
    const onError = ({ message }: Error) => errors.push(message);
    const backEnd = new VhostUserBackEnd(calls, new BlockDevice(file, { size: DISK }), { onError });
    served = listener
      .accept()
      .then((connection) => backEnd.serve(connection))
      .finally(() => {
        backEnd.close();
        listener.close();
      });
    frontEnd = await VhostUserFrontEnd.connect(calls, listener.path);
    const place = { memory: space, gpa: MMIO, deviceId: 2, configSize: 60, maxQueueSize: 128 };
    const device = await VirtioMmio.attach(calls, frontEnd, { ...place, ...(isReal ? { io: vm.io } : {}), ...more });
    vcpu = vm.createVcpu();
    return device;
  }

  const interrupt = (level: boolean) => levels.push(level);
  const sector = (index: number) => content.subarray(index * 512, (index + 1) * 512);

  async function run(steps: readonly Step[]): Promise<void> {
    loadSteps(kvm, vcpu, space, steps);
    expect(await vcpu.run()).toEqual({ reason: 'HLT' });
  }

  /** With the interrupt controller in the kernel a halted vCPU doesn't come back: it leaves by a store where nothing is. */
  async function runUntilStore(steps: readonly Step[]): Promise<void> {
    loadSteps(kvm, vcpu, space, [...steps, put(NOTHING, 0)]);
    expect(await vcpu.run()).toMatchObject({ reason: 'MMIO' });
  }

  if (isReal) {
    it('is interrupted by the back end itself, in the kernel, where the device has a GSI', async () => {
      vm.io.createIrqchip();
      using _device = await attached({ interrupt, gsi: GSI });
      expect(pending(vm)).toBe(0);
      await runUntilStore([...SET_UP, ...request(3, 1)]);
      await expect.poll(() => pending(vm), { timeout: 10_000 }).toBe(1 << GSI);
      expect(sector(3).equals(space.readExact(DATA, 512))).toBe(true);
      // It always says that a buffer was used: nobody here heard of it.
      await runUntilStore([get(MMIO + 0x60, RESULTS)]);
      expect(space.readU32(RESULTS)).toBe(1);
      expect(levels).toEqual([]);
    });

    it('raises the GSI when its back end ends, too, and the guest reads why', async () => {
      vm.io.createIrqchip();
      using device = await attached({ gsi: GSI });
      expect(pending(vm)).toBe(0);
      frontEnd.close();
      await served;
      await expect.poll(() => pending(vm), { timeout: 10_000 }).toBe(1 << GSI);
      await runUntilStore([get(MMIO + 0x60, RESULTS), get(MMIO + 0x70, RESULTS + 4)]);
      // A buffer may have been used, and the configuration changed: the status is part of that.
      expect([space.readU32(RESULTS), space.readU32(RESULTS + 4), device.status]).toEqual([3, 64, 64]);
    });
  }

  it('hears that the back end gave its queue up, and is served again after a reset', async () => {
    using device = await attached({ interrupt });
    // More buffers than the queue has descriptors.
    await run([...SET_UP, put(LAYOUT.avail, 1000 << 16), put(MMIO + 0x50, 0)]);
    await expect.poll(() => device.status, { timeout: 10_000 }).toBe(15 | 64);
    expect([levels, errors.length]).toEqual([[true], 1]);
    await run([get(MMIO + 0x60, RESULTS), get(MMIO + 0x70, RESULTS + 4), put(MMIO + 0x64, 2)]);
    expect([space.readU32(RESULTS), space.readU32(RESULTS + 4), levels]).toEqual([2, 79, [true, false]]);
    // What a driver writes does not take the bit away, only a reset does.
    await run([put(MMIO + 0x70, 15)]);
    expect(device.status).toBe(79);
    await run([put(MMIO + 0x70, 0)]);
    await expect.poll(() => device.status, { timeout: 10_000 }).toBe(0);
    for (let i = 0; i < 0x400; i += 4) space.writeU32(LAYOUT.avail + i, 0);
    space.writeU32(LAYOUT.used, 0);
    await run([...SET_UP, ...request(3, 1)]);
    await expect.poll(() => levels, { timeout: 10_000 }).toEqual([true, false, true]);
    expect(sector(3).equals(space.readExact(DATA, 512))).toBe(true);
    expect(device.status).toBe(15);
  });

  it('drives a disk that another program serves, through registers, doorbells and interrupts', async () => {
    using device = await attached({ interrupt });
    const results = () => Array.from({ length: 7 }, (_, i) => space.readU32(RESULTS + 4 * i));

    await run([...SET_UP, ...request(3, 1)]);
    await expect.poll(() => levels, { timeout: 10_000 }).toEqual([true]);
    // Magic, version, disk; VERSION_1 is offered; FEATURES_OK stays; the queue's maximum; the capacity.
    const [magic, version, id, offered, status, most, capacity] = results();
    expect([magic, version, id, offered! & 1, status, most, capacity]).toEqual([
      0x7472_6976,
      2,
      2,
      1,
      11,
      128,
      DISK / 512,
    ]);
    expect(space.readU8(STATUS)).toBe(0);
    expect(sector(3).equals(space.readExact(DATA, 512))).toBe(true);

    await run([get(MMIO + 0x60, RESULTS), put(MMIO + 0x64, 1), get(MMIO + 0x60, RESULTS + 4), ...request(9, 2)]);
    expect(results().slice(0, 2)).toEqual([1, 0]);
    await expect.poll(() => levels, { timeout: 10_000 }).toEqual([true, false, true]);
    expect(sector(9).equals(space.readExact(DATA, 512))).toBe(true);

    await run([put(MMIO + 0x70, 0)]);
    await expect.poll(() => device.status, { timeout: 10_000 }).toBe(0);
    expect(levels).toEqual([true, false, true, false]);
    // It begins anew: what is not offered isn't taken, and the status says so.
    await run([put(MMIO + 0x70, 3), put(MMIO + 0x24, 1), put(MMIO + 0x20, 0x8000_0001), put(MMIO + 0x70, 11)]);
    expect(device.status).toBe(3);
    frontEnd.close();
    await served;
    await sleep(1);
    expect(device.status & 64).toBe(64);
  });
});
