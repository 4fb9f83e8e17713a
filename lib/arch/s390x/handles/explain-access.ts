/** Why a MEM_OP ended in a program interruption: found out afterwards, by the model over the guest's own tables. */

import { hex } from '../../../base/errors.ts';
import type { S390xCalls } from '../../../calls/kvm-calls.ts';
import { CR0_FETCH_PROTECTION_OVERRIDE } from '../model/control-registers.ts';
import { type CpuState, cr0Low } from '../model/cpu-state.ts';
import { explainTranslation } from '../model/explain.ts';
import { PGM_ADDRESSING, PGM_PROTECTION } from '../model/program-interruption.ts';
import { addressingMode } from '../model/psw.ts';
import { decodeStorageKey, keyPermits, storageOverridePermits } from '../model/storage-key.ts';
import { addressOf } from '../model/u64.ts';
import { KernelMemory } from './kernel-memory.ts';

/** What is known about the failing access. */
export interface AccessFailure {
  /** First address of the access that failed. */
  readonly address?: bigint;
  readonly explanation?: string;
  readonly walk?: string;
}

/** An access as it was asked for. */
export interface AccessFacts {
  readonly gaddr: bigint;
  readonly size: number;
  readonly store: boolean;
  readonly key: number;
}

/** A logical access. */
export interface LogicalAccessFacts extends AccessFacts {
  readonly ar: number;
  readonly checkOnly: boolean;
}

/** The VM whose memory is looked at. */
export interface ExplainedVm {
  readonly s390x: S390xCalls;
  readonly fd: number;
}

const HOST_PAGE =
  'the tables and keys permit it, so the host lacks the page or may not write it: up to 6.19 that counts as protection';

/** What an addressing mode makes of an address that it can't form, which surprises whoever has just made a vCPU. */
export function wrapHint(mode: 24 | 31 | 64, gaddr: bigint): string | undefined {
  const effective = BigInt.asUintN(mode, gaddr);
  if (effective === gaddr) return undefined;
  const fresh = mode === 24 ? ', as it does on a vCPU that never ran' : '';
  return `the PSW says ${mode}-bit addressing${fresh}, so that ${hex(gaddr)} means ${hex(effective)}`;
}

/** Explains a logical access that gave `code`. Nothing is said where the model's own result is another one. */
export function explainLogical(
  cpu: CpuState,
  vm: ExplainedVm,
  access: LogicalAccessFacts,
  code: number,
): AccessFailure {
  const found = findLogical(cpu, vm, access, code);
  const hint = wrapHint(addressingMode(cpu.pswMaskHi, cpu.pswMaskLo), access.gaddr);
  if (hint === undefined) return found;
  return { ...found, explanation: found.explanation === undefined ? hint : `${found.explanation}; ${hint}` };
}

function findLogical(cpu: CpuState, vm: ExplainedVm, access: LogicalAccessFacts, code: number): AccessFailure {
  const memory = new KernelMemory(vm.s390x, vm.fd);
  const frames: { address: bigint; absolute: bigint }[] = [];
  for (const address of fragments(access)) {
    const kind = access.store ? 'store' : 'fetch';
    const explained = explainTranslation(cpu, memory, address, { access: kind, ar: access.ar });
    if (explained.absolute === undefined) {
      // Every page is translated before a key is looked at; a check takes page by page.
      const failure = {
        address: explained.address,
        explanation: explained.reason ?? explained.outcome,
        walk: explained.text,
      };
      if (access.checkOnly) return findKey(cpu, vm, access, frames, code) ?? (explained.code === code ? failure : {});
      return explained.code === code ? failure : {};
    }
    frames.push({ address: explained.address, absolute: explained.absolute });
  }
  return findKey(cpu, vm, access, frames, code) ?? (code === PGM_PROTECTION ? { explanation: HOST_PAGE } : {});
}

/** Explains an access to absolute storage that gave `code`. */
export function explainAbsolute(vm: ExplainedVm, access: AccessFacts, code: number): AccessFailure {
  const memory = new KernelMemory(vm.s390x, vm.fd);
  const frames: { address: bigint; absolute: bigint }[] = [];
  for (const address of fragments(access)) {
    if (!memory.hasFrame(Number(address >> 12n))) {
      const missing = { address, explanation: `no memslot has absolute ${hex(address)}` };
      return findKey(undefined, vm, access, frames, code) ?? (code === PGM_ADDRESSING ? missing : {});
    }
    frames.push({ address, absolute: address });
  }
  return findKey(undefined, vm, access, frames, code) ?? (code === PGM_PROTECTION ? { explanation: HOST_PAGE } : {});
}

/** The first frame whose storage key forbids the access. */
function findKey(
  cpu: CpuState | undefined,
  { s390x, fd }: ExplainedVm,
  { key, store }: AccessFacts,
  frames: readonly { readonly address: bigint; readonly absolute: bigint }[],
  code: number,
): AccessFailure | undefined {
  if (code !== PGM_PROTECTION || key === 0) return undefined;
  for (const { address, absolute } of frames) {
    const byte = new Uint8Array(1);
    if (s390x.getSkeys(fd, absolute >> 12n, 1, 0, byte) !== 0) continue;
    const storageKey = byte[0]!;
    if (keyPermits(key, storageKey, store)) continue;
    if (cpu !== undefined && overridden(cpu, storageKey, address, store)) continue;
    const { acc, fetchProtection } = decodeStorageKey(storageKey);
    const frame = hex(addressOf(Number(absolute >> 12n)));
    const what = fetchProtection ? 'fetches and stores' : 'stores';
    return {
      address,
      explanation: `access key ${key} does not match the storage key of the frame at absolute ${frame} (ACC ${acc}), which protects against ${what}`,
    };
  }
  return undefined;
}

function overridden(cpu: CpuState, storageKey: number, address: bigint, store: boolean): boolean {
  const cr0 = cr0Low(cpu);
  if (storageOverridePermits(cr0, storageKey)) return true;
  return !store && (cr0 & CR0_FETCH_PROTECTION_OVERRIDE) !== 0 && address < 2048n;
}

/** Addresses at which the pages of an access begin: the first one anywhere, the others at a page. */
function* fragments({ gaddr, size }: AccessFacts): Generator<bigint, void> {
  const end = gaddr + BigInt(size);
  for (let at = gaddr; at < end; at = ((at >> 12n) + 1n) << 12n) yield BigInt.asUintN(64, at);
}
