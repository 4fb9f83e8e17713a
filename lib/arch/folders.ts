// The architectures that there are: a line for each.
export { aarch64 } from './aarch64/index.ts';
export { ppc64 } from './ppc64/index.ts';
export { riscv64 } from './riscv64/index.ts';
export { s390x } from './s390x/index.ts';
export { x86_64 } from './x86_64/index.ts';
