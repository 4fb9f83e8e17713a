import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';
import type { KvmCalls } from '../../../lib/raw.ts';
import { loadNative, MAP, PROT, REGS_SIZE, X86_64_REGS } from '../../../lib/raw.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';

const loaded = loadNative();
const missingKvm = whyNoKvm(loaded);

export const RW = PROT.READ | PROT.WRITE;
export const ANONYMOUS = MAP.PRIVATE | MAP.ANONYMOUS;
export const PAGE = 'calls' in loaded ? loaded.calls.pageSize : 4096;

/** The addon, or the test is skipped with the reason. */
export function addon(test: TestContext): KvmCalls {
  if (!('calls' in loaded)) return test.skip(loaded.reason);
  return loaded.calls;
}

/** The addon where /dev/kvm can be opened. */
export function realKvm(test: TestContext): KvmCalls {
  const calls = addon(test);
  if (missingKvm !== undefined) test.skip(missingKvm);
  return calls;
}

export function anonymous(calls: KvmCalls, length: number): number {
  return calls.mmap(length, RW, ANONYMOUS, -1, 0, 0, 0);
}

export function viewOf(calls: KvmCalls, hva: number, length: number): ArrayBuffer {
  const view = calls.view(hva, length);
  if (typeof view === 'number') throw new Error(`view: ${view}`);
  return view as ArrayBuffer;
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** `jmp $`: a guest that never leaves by itself. */
export const SPIN = [0xeb, 0xfe];

export interface RealModeGuest {
  readonly kvm: number;
  readonly vm: number;
  readonly vcpu: number;
  readonly ram: number;
  /** kvm_run. */
  readonly run: DataView;
  close(): void;
}

const RAM_BYTES = 0x10000;
const CODE = 0x1000;

/** A VM with 64 KiB of memory and a vCPU about to execute 16-bit `code`. */
export function realModeGuest(test: TestContext, code: readonly number[]): { calls: KvmCalls; guest: RealModeGuest } {
  const calls = realKvm(test);
  if (calls.arch !== 'x86_64') test.skip(`the guest's machine code is for x86_64, and this is ${calls.arch}`);
  const kvm = calls.openKvm();
  const vm = calls.createVm(kvm, 0);
  const ram = anonymous(calls, RAM_BYTES);
  new Uint8Array(viewOf(calls, ram, RAM_BYTES)).set(code, CODE);
  calls.setUserMemoryRegion(vm, 0, 0, 0, RAM_BYTES, ram);
  const vcpu = calls.createVcpu(vm, 0);
  const runBytes = calls.getVcpuMmapSize(kvm, 0);
  const runHva = calls.mmap(runBytes, RW, MAP.SHARED, vcpu, 0, 0, 0);
  enterRealMode(calls, vcpu);
  const close = (): void => {
    for (const fd of [vcpu, vm, kvm]) calls.close(fd);
    calls.munmap(runHva, runBytes);
    calls.munmap(ram, RAM_BYTES);
  };
  return { calls, guest: { kvm, vm, vcpu, ram, run: new DataView(viewOf(calls, runHva, runBytes)), close } };
}

function enterRealMode(calls: KvmCalls, vcpu: number): void {
  const sregs = new Uint8Array(REGS_SIZE.x86_64.sregs ?? 0);
  calls.getSregs(vcpu, sregs);
  const cs = new DataView(sregs.buffer);
  cs.setBigUint64(0, 0n, true);
  cs.setUint16(12, 0, true);
  calls.setSregs(vcpu, sregs);
  const regs = new DataView(new ArrayBuffer(REGS_SIZE.x86_64.regs ?? 0));
  regs.setBigUint64(8 * X86_64_REGS.indexOf('rip'), BigInt(CODE), true);
  regs.setBigUint64(8 * X86_64_REGS.indexOf('rflags'), 2n, true);
  calls.setRegs(vcpu, new Uint8Array(regs.buffer));
}

export interface ChildResult {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one of the programs of `children/` in a process of its own, where it may crash without taking the tests along. */
export function runChild(name: string, args: readonly string[] = [], nodeFlags: readonly string[] = []): ChildResult {
  return runNode([...nodeFlags, childPath(name), ...args]);
}

/** Runs Node; with ThreadSanitizer if that is asked for (native/sanitize/run.mjs --threads). */
export function runNode(args: readonly string[], preload?: string, env: NodeJS.ProcessEnv = {}): ChildResult {
  const { TSAN_RUNTIME: runtime, TSAN_ADDON: sanitized } = process.env;
  const libraries = [runtime, preload].filter((library) => library !== undefined).join(':');
  // ThreadSanitizer wants addresses where it expects them.
  const [program, ...before] = runtime === undefined ? [process.execPath] : ['setarch', '-R', process.execPath];
  const { status, signal, stdout, stderr } = spawnSync(program as string, [...before, ...args], {
    encoding: 'utf8',
    timeout: 120_000,
    env: {
      ...process.env,
      ...(libraries === '' ? {} : { LD_PRELOAD: libraries }),
      ...(sanitized === undefined ? {} : { KVM_BRIDGE_ADDON: sanitized }),
      ...env,
    },
  });
  return { status, signal, stdout, stderr };
}

export function childPath(name: string): string {
  return fileURLToPath(new URL(`children/${name}.mjs`, import.meta.url));
}
