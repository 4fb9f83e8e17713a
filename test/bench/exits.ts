import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Vcpu } from '../../lib/handles/vcpu.ts';
import type { Vm } from '../../lib/handles/vm.ts';
import { Mapping } from '../../lib/memory/mapping.ts';
import { EXIT } from '../../lib/uapi/flags.ts';
import { KVM_RUN } from '../../lib/uapi/structs.ts';
import { type Bench, type Benchmark, openReal, requireEqual } from './benchmark.ts';
import type { Case, Contender } from './measure.ts';

const CODE = 0x1000;
const MMIO = 0xd000_0000;
const MMIO_SIZE = 0x1000;

/** `ecx` accesses to the MMIO range, then HLT: code for real mode with segments that reach all of 4 GiB. */
function guestCode(access: 'load' | 'store'): Uint8Array {
  const opcode = access === 'store' ? 0x89 : 0x8b;
  const code = new Uint8Array([0x67, 0x66, opcode, 0x05, 0, 0, 0, 0, 0x66, 0x49, 0x75, 0xf4, 0xf4]);
  new DataView(code.buffer).setUint32(4, MMIO, true);
  return code;
}

/** A vCPU whose guest does MMIO. */
function boot(vm: Vm, access: 'load' | 'store'): Vcpu {
  const ram = Mapping.memfd(vm.calls, 0x10_000);
  vm.memory.addRam(0, ram);
  ram.close();
  vm.memory.writeExact(CODE, guestCode(access));
  const vcpu = vm.createVcpu();
  const sregs = vcpu.x86_64.getSregs();
  const segment = { base: 0n, limit: 0xffff_ffff, selector: 0, g: 1 };
  const { cs, ds, es, fs, gs, ss } = sregs;
  vcpu.x86_64.setSregs({
    cs: { ...cs, ...segment },
    ds: { ...ds, ...segment },
    es: { ...es, ...segment },
    fs: { ...fs, ...segment },
    gs: { ...gs, ...segment },
    ss: { ...ss, ...segment },
  });
  return vcpu;
}

/** A worker that has a vCPU, with its handlers there. */
class ExitWorker {
  readonly #worker: Worker;
  readonly #ready: Promise<unknown>;

  constructor(vm: Vm, vmInC: Vm, access: 'load' | 'store') {
    const [vcpu, inC] = [boot(vm, access), boot(vmInC, access)];
    for (const { memory } of [vm, vmInC]) memory.share();
    // Benchmarks are compiled, their tests are not.
    const isCompiled = import.meta.url.endsWith('.js');
    const register = new URL('../typescript/register.mjs', import.meta.url).href;
    this.#worker = new Worker(fileURLToPath(new URL(`exits-worker.${isCompiled ? 'js' : 'ts'}`, import.meta.url)), {
      execArgv: isCompiled ? [] : ['--import', register],
      workerData: { token: vcpu.token, tokenInC: inC.token, code: CODE, mmio: MMIO, size: MMIO_SIZE },
    });
    // Until it has gone, which is some time after it is told to: a token holds nothing, and the collector closes a vCPU
    // that nobody has.
    this.#worker.once('exit', () => {
      for (const each of [vcpu, inC, vm, vmInC]) each.close();
    });
    this.#ready = once(this.#worker, 'message');
  }

  /** Has the guest do many accesses, and gives the processor time that the worker had for one, in nanoseconds. */
  async run(how: 'runSync' | 'C'): Promise<number> {
    await this.#ready;
    this.#worker.postMessage(how);
    const [cost] = (await once(this.#worker, 'message')) as [number];
    return cost;
  }

  [Symbol.dispose](): void {
    void this.#worker.terminate();
  }
}

export const mmioExits: Benchmark = {
  name: 'mmio-exit',
  needsKvm: true,
  *cases({ comparators: { c } }: Bench): Generator<Case> {
    using kvm = openReal();
    if (kvm.arch !== 'x86_64') return;
    for (const access of ['store', 'load'] as const) {
      using vm = kvm.createVm();
      using vcpu = boot(vm, access);
      // Its own: a vCPU that changes threads pays for that.
      using asyncVm = kvm.createVm();
      using asyncVcpu = boot(asyncVm, access);
      // C's own: ours has a signal mask for runs, and C wouldn't take the signals that end them.
      using vmInC = kvm.createVm();
      using vcpuInC = boot(vmInC, access);
      let handled = 0;
      let stored: number | bigint = 0;
      const handlers = {
        read: () => {
          handled++;
          return 0x42;
        },
        write: (_offset: number, value: number | bigint) => {
          handled++;
          stored = value;
        },
      };
      for (const { memory } of [vm, asyncVm]) memory.addMmio(MMIO, MMIO_SIZE, handlers);
      /** Has the guest do `n` accesses, from the start of its code to its HLT. */
      const start = (at: Vcpu, n: number): void => {
        handled = 0;
        at.x86_64.setRegs({ rip: CODE, rflags: 2, rcx: n });
      };
      const requireHandled = (n: number): void => {
        requireEqual(handled, n, `MMIO accesses (the last stored ${stored})`);
      };
      const accesses = new Uint32Array(1);
      const { fd, calls } = vcpu;
      const runRaw = (): void => {
        const { kvmRun } = vcpu;
        const reply = new Uint8Array([0x42, 0, 0, 0]);
        for (;;) {
          if (calls.run(fd, 0) !== 0) throw new Error('KVM_RUN failed');
          if (kvmRun.exitReason === EXIT.HLT) return;
          handled++;
          if (access === 'load') kvmRun.bytes.set(reply, KVM_RUN.mmio.data);
        }
      };
      const inC: Contender = {
        name: 'C',
        run: (n) => {
          start(vcpuInC, n);
          c.runUntilHlt(vcpuInC.fd, vcpuInC.kvmRun.bytes, MMIO, MMIO_SIZE, accesses);
          requireEqual(accesses[0]!, n, 'MMIO accesses');
        },
      };
      yield {
        title: `MMIO exit round trip, a guest's 32-bit ${access}`,
        meter: 'cpu',
        per: 'exit',
        contenders: [
          {
            name: 'runSync',
            run: (n) => {
              start(vcpu, n);
              vcpu.runSync();
              requireHandled(n);
            },
          },
          {
            name: 'raw',
            run: (n) => {
              start(vcpu, n);
              runRaw();
              requireHandled(n);
            },
          },
          inC,
        ],
        comparisons: [
          { of: 'runSync', to: 'C', goal: 1.25 },
          { of: 'raw', to: 'C', goal: 1.25 },
        ],
      };
      yield {
        title: `MMIO exit round trip through the vCPU's own thread, a guest's 32-bit ${access}`,
        meter: 'clock',
        per: 'exit',
        contenders: [
          {
            name: 'run',
            run: async (n) => {
              start(asyncVcpu, n);
              await asyncVcpu.run();
              requireHandled(n);
            },
          },
          inC,
        ],
        comparisons: [{ of: 'run', to: 'C' }],
      };
      using worker = new ExitWorker(kvm.createVm(), kvm.createVm(), access);
      yield {
        title: `MMIO exit round trip in a worker, a guest's 32-bit ${access}`,
        meter: 'result',
        per: 'exit',
        contenders: [
          { name: 'runSync', run: () => worker.run('runSync') },
          { name: 'C', run: () => worker.run('C') },
        ],
        comparisons: [{ of: 'runSync', to: 'C', goal: 1.15 }],
      };
    }
  },
};
