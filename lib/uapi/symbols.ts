import { ARCH_FACTS, type Arch } from './arch.ts';
import { checkKnown, checkWide } from './argument-errors.ts';
import { CAP } from './capabilities.ts';
import {
  ARM_SEA_GPA_VALID,
  FALLOC,
  GUEST_MEMFD_FLAG,
  HTAB,
  IOEVENTFD,
  IRQFD,
  KEYOP,
  MADV,
  MAP,
  MEM,
  MEMOP,
  MEMOP_FLAG,
  MEMORY_ATTRIBUTE_PRIVATE,
  MEMORY_EXIT_FLAG,
  PPC_COMPAT_CAP,
  PROT,
} from './flags.ts';
import { requestName } from './requests.ts';
import { UFFD_FEATURE, UFFDIO_REGISTER_MODE, UFFDIO_RWPROTECT_MODE, UFFDIO_WRITEPROTECT_MODE } from './userfaultfd.ts';

type Names = Readonly<Record<string, number | bigint>>;

/** Numbers of which each is one thing. */
const VALUES = { CAP, MADV, MEMOP, KEYOP } as const satisfies Record<string, Names>;

/** Words whose bits are things of their own. */
const FLAGS = {
  MEM,
  GUEST_MEMFD_FLAG,
  FALLOC,
  MEMORY_ATTRIBUTE: { PRIVATE: MEMORY_ATTRIBUTE_PRIVATE },
  IOEVENTFD,
  IRQFD,
  PROT,
  MAP,
  MEMOP_FLAG,
  HTAB,
  MEMORY_EXIT_FLAG,
  ARM_SEA: { GPA_VALID: ARM_SEA_GPA_VALID },
  PPC_COMPAT_CAP,
  UFFD_FEATURE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_WRITEPROTECT_MODE,
  UFFDIO_RWPROTECT_MODE,
} as const satisfies Record<string, Names>;

/** A set of names for numbers, by the name of the constant that holds them; REQUEST and VM_TYPE differ between architectures. */
export type SymbolSet = keyof typeof VALUES | keyof typeof FLAGS | 'REQUEST' | 'VM_TYPE';

const SETS = { ...VALUES, ...FLAGS, REQUEST: 0, VM_TYPE: 0 };

/**
 * A number by its names, as C code would have it: `LOG_DIRTY_PAGES|READONLY`. What has no name stays a number.
 *
 * @example symbolic('MEM', 5, 'x86_64') // 'LOG_DIRTY_PAGES|GUEST_MEMFD'
 */
export function symbolic(set: SymbolSet, value: number | bigint, arch: Arch): string {
  checkWide(value, 'value');
  checkKnown(arch, 'arch', ARCH_FACTS);
  if (set === 'REQUEST') return requestName(Number(value) >>> 0, arch) ?? `0x${value.toString(16)}`;
  if (set === 'VM_TYPE') return flagNames(ARCH_FACTS[arch].vmTypes ?? {}, BigInt(value));
  checkKnown(set, 'set', SETS);
  if (Object.hasOwn(FLAGS, set)) return flagNames(FLAGS[set as keyof typeof FLAGS], BigInt(value));
  const names: Names = VALUES[set as keyof typeof VALUES];
  return Object.keys(names).find((name) => names[name] === Number(value)) ?? value.toString();
}

function flagNames(names: Names, word: bigint): string {
  const found: string[] = [];
  let rest = word;
  for (const [name, bit] of Object.entries(names)) {
    if (bit === 0 ? word !== 0n : (rest & BigInt(bit)) === 0n) continue;
    found.push(name);
    rest &= ~BigInt(bit);
  }
  if (rest !== 0n) found.push(`0x${rest.toString(16)}`);
  return found.length === 0 ? '0' : found.join('|');
}
