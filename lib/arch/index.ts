import type { Arch } from '../uapi/arch.ts';
import * as folders from './folders.ts';
import type { ArchParts } from './parts.ts';

/** What the folder of each architecture hands out. */
export const ARCH_PARTS: Readonly<Record<Arch, ArchParts>> = folders;
