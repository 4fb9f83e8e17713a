import type { ArchParts } from '../parts.ts';
import { aarch64Architecture } from './emulated/architecture.ts';

export const aarch64: ArchParts = { emulated: (release) => aarch64Architecture(release) };
