import type { ArchParts } from '../parts.ts';
import { ppc64Architecture } from './emulated/architecture.ts';

export const ppc64: ArchParts = { emulated: (release, { pageSize }) => ppc64Architecture(release, pageSize) };
