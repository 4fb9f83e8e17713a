import { join } from 'node:path';
import { LabError } from '../../../lib/lab/lab-error.ts';
import type { Machine, Variant } from '../../../lib/lab/variants.ts';
import type { LabOptions } from '../../../lib/lab/with-machine.ts';
import type { CapturedProcess } from '../guest/captured.ts';
import { OUT_FOLDER } from '../job.ts';
import { runInLab } from '../run-in-lab.ts';
import type { GdbStub } from './gdb-stub.ts';
import * as ppc64 from './ppc64.ts';
import type { Qmp } from './qmp.ts';
import * as s390x from './s390x.ts';
import { whileStopped } from './stopped.ts';

/*
 * Captures of a running Linux guest: its translation tables with the registers that decide about them, and what QEMU's own
 * processor makes of them. The format is that of test/captures, less what README files there say of other spaces and processes.
 */

/** A machine that is stopped in user mode, and ways to ask it. */
export interface StoppedMachine {
  readonly qmp: Qmp;
  readonly gdb: GdbStub;
  readonly process: CapturedProcess;
  readonly memoryBytes: number;
  /** For files that QEMU writes; gone when the machine is. */
  readonly folder: string;
}

/** Writes the capture's files into a folder. */
export type Look = (machine: StoppedMachine, into: string) => Promise<void>;

/** What came of holding the model against a capture. */
export interface Verified {
  /** What was compared, for people. */
  readonly checked: string;
  readonly differences: readonly string[];
}

interface Captured {
  /** What is otherwise about the machine than in the lab. */
  readonly machine: Partial<Machine>;
  readonly littleEndian: boolean;
  readonly inUserMode: (registers: string) => boolean;
  readonly look: Look;
  readonly verify: (directory: string) => Verified | Promise<Verified>;
}

const CAPTURED: Readonly<Partial<Record<string, Captured>>> = {
  s390x: {
    machine: {},
    littleEndian: false,
    inUserMode: s390x.inUserMode,
    look: s390x.captureS390x,
    verify: s390x.verifyS390x,
  },
  ppc64: {
    // Not the host of the lab, but a guest such as hosts have: one with a hashed page table, which QEMU keeps for it.
    machine: {
      machine: [
        ...['-M', 'pseries,cap-hpt-max-page-size=16m', '-cpu', 'POWER9', '-m', '1G'],
        ...['-accel', 'tcg,tb-size=512', '-nodefaults'],
      ],
      serialController: 'virtio-serial-pci',
      append: 'console=hvc0 quiet panic=-1 oops=panic apparmor=0 audit=0 disable_radix',
      modulesLeftOut: '*-kvm*',
    },
    littleEndian: true,
    inUserMode: ppc64.inUserMode,
    look: ppc64.capturePpc64,
    verify: ppc64.verifyPpc64,
  },
};

const TIMEOUT_MS = 5 * 60_000;

export interface CaptureOptions extends LabOptions {
  /** Folder for the capture's files. Default: in `out`, named after the variant. */
  readonly into?: string | undefined;
}

/** Whether a machine of the architecture can be captured. */
export function canCapture(arch: string): boolean {
  return CAPTURED[arch] !== undefined;
}

/**
 * Boots Linux, stops it in a process, writes a capture, and holds our model of the architecture against it.
 *
 * @returns the folder, and what the model said
 */
export async function capture(
  variant: Variant,
  options: CaptureOptions,
): Promise<Verified & { readonly folder: string }> {
  const how = CAPTURED[variant.machine.arch];
  if (how === undefined) throw new LabError(`There is no capture of ${variant.machine.arch}.`);
  const machine: Machine = { ...variant.machine, ...how.machine };
  const into = options.into ?? join(OUT_FOLDER, 'captures', variant.id);
  await runInLab(
    { ...variant, machine },
    {
      ...options,
      script: 'test/lab/guest/captured.js',
      timeoutMs: TIMEOUT_MS,
      inspect: async (result, controls, folder) => {
        options.onProgress?.('stopping the machine and asking QEMU');
        const process = result as unknown as CapturedProcess;
        await whileStopped(controls, how.littleEndian, how.inUserMode, (qmp, gdb) =>
          how.look({ qmp, gdb, process, folder, memoryBytes: memoryBytes(machine) }, into),
        );
      },
    },
  );
  return { folder: into, ...(await how.verify(into)) };
}

/** The size of the machine's memory, from QEMU's option. */
function memoryBytes({ machine }: Machine): number {
  const [, count, unit] = /^(\d+)([MG])$/.exec(machine[machine.indexOf('-m') + 1] ?? '') ?? [];
  if (count === undefined) throw new Error('the machine does not say how much memory it has');
  return Number(count) * 1024 ** (unit === 'G' ? 3 : 2);
}
