import { checkInteger, checkObject, checkU32, toU64 } from '../../../base/arguments.ts';
import { checkRegisters, registersOf, type SomeRegisters } from '../../../base/registers.ts';
import {
  KVM_DTABLE,
  KVM_SEGMENT,
  KVM_SREGS_X86_64,
  REGS_SIZE,
  X86_64_REGS,
  X86_64_SEGMENTS,
} from '../../../uapi/structs.ts';

export type X86_64RegName = (typeof X86_64_REGS)[number];

/** The general registers of an x86_64 vCPU (`struct kvm_regs`). */
export type X86_64Regs = Record<X86_64RegName, bigint>;

/** A segment register (`struct kvm_segment`). */
export interface X86_64Segment {
  base: bigint;
  limit: number;
  selector: number;
  type: number;
  present: number;
  dpl: number;
  db: number;
  s: number;
  l: number;
  g: number;
  avl: number;
  unusable: number;
}

/** GDT or IDT register. */
export interface X86_64DescriptorTable {
  base: bigint;
  limit: number;
}

const CONTROL = ['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'apicBase'] as const;
const SEGMENT_BYTES = ['type', 'present', 'dpl', 'db', 's', 'l', 'g', 'avl', 'unusable'] as const;

/** Segment and control registers (`struct kvm_sregs`). */
export type X86_64Sregs = Record<(typeof X86_64_SEGMENTS)[number], X86_64Segment> &
  Record<(typeof CONTROL)[number], bigint> & { gdt: X86_64DescriptorTable; idt: X86_64DescriptorTable };

export function decodeRegs(bytes: Uint8Array): X86_64Regs {
  const view = viewOf(bytes);
  return registersOf(X86_64_REGS, (_, index) => view.getBigUint64(8 * index, true));
}

/** Puts the registers that are given into the structure, and leaves the others. */
export function encodeRegs(bytes: Uint8Array, regs: SomeRegisters<X86_64RegName>): void {
  const view = viewOf(bytes);
  for (const [name, value] of checkRegisters(regs, X86_64_REGS)) {
    view.setBigUint64(8 * X86_64_REGS.indexOf(name), value, true);
  }
}

export function decodeSregs(bytes: Uint8Array): X86_64Sregs {
  const view = viewOf(bytes);
  const segments = X86_64_SEGMENTS.map(
    (name, index) => [name, decodeSegment(view, index * KVM_SEGMENT.structSize)] as const,
  );
  const control = CONTROL.map(
    (name, index) => [name, view.getBigUint64(KVM_SREGS_X86_64.cr0 + 8 * index, true)] as const,
  );
  return {
    ...Object.fromEntries([...segments]),
    ...Object.fromEntries([...control]),
    gdt: decodeTable(view, KVM_SREGS_X86_64.gdt),
    idt: decodeTable(view, KVM_SREGS_X86_64.idt),
  } as X86_64Sregs;
}

export function encodeSregs(bytes: Uint8Array, sregs: Partial<X86_64Sregs>): void {
  checkObject(sregs, 'sregs');
  const view = viewOf(bytes);
  for (const [index, name] of X86_64_SEGMENTS.entries()) {
    const segment = sregs[name];
    if (segment !== undefined) encodeSegment(view, index * KVM_SEGMENT.structSize, segment, `sregs.${name}`);
  }
  for (const [index, name] of CONTROL.entries()) {
    const value = sregs[name];
    if (value !== undefined) view.setBigUint64(KVM_SREGS_X86_64.cr0 + 8 * index, toU64(value, `sregs.${name}`), true);
  }
  for (const name of ['gdt', 'idt'] as const) {
    const at = KVM_SREGS_X86_64[name];
    const descriptors = sregs[name];
    if (descriptors === undefined) continue;
    const { base, limit } = checkObject(descriptors, `sregs.${name}`);
    view.setBigUint64(at + KVM_DTABLE.base, toU64(base, `sregs.${name}.base`), true);
    view.setUint16(at + KVM_DTABLE.limit, checkInteger(limit, `sregs.${name}.limit`, 0, 0xffff), true);
  }
}

export const X86_64_REGS_BYTES = REGS_SIZE.x86_64.regs!;
export const X86_64_SREGS_BYTES = REGS_SIZE.x86_64.sregs!;

function decodeSegment(view: DataView, at: number): X86_64Segment {
  const flags = SEGMENT_BYTES.map((name, index) => [name, view.getUint8(at + KVM_SEGMENT.type + index)] as const);
  return {
    base: view.getBigUint64(at + KVM_SEGMENT.base, true),
    limit: view.getUint32(at + KVM_SEGMENT.limit, true),
    selector: view.getUint16(at + KVM_SEGMENT.selector, true),
    ...Object.fromEntries(flags),
  } as X86_64Segment;
}

function encodeSegment(view: DataView, at: number, segment: X86_64Segment, name: string): void {
  const { base, limit, selector } = checkObject(segment, name);
  view.setBigUint64(at + KVM_SEGMENT.base, toU64(base, `${name}.base`), true);
  view.setUint32(at + KVM_SEGMENT.limit, checkU32(limit, `${name}.limit`), true);
  view.setUint16(at + KVM_SEGMENT.selector, checkInteger(selector, `${name}.selector`, 0, 0xffff), true);
  for (const [index, flag] of SEGMENT_BYTES.entries()) {
    view.setUint8(at + KVM_SEGMENT.type + index, checkInteger(segment[flag], `${name}.${flag}`, 0, 0xff));
  }
}

function decodeTable(view: DataView, at: number): X86_64DescriptorTable {
  return {
    base: view.getBigUint64(at + KVM_DTABLE.base, true),
    limit: view.getUint16(at + KVM_DTABLE.limit, true),
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
