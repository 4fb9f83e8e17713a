export * from './guest.ts';
export { EmulatedKernel, type EmulatedKernelOptions } from './kernel.ts';
