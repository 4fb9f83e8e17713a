/**
 * The flat layer: one method per system call, plain values in, what the kernel returns out.
 *
 * @example
 * import { openCalls, requestNumber } from 'kvm-bridge/raw';
 * const { calls } = openCalls({ backend: 'native' });
 * const vm = calls.createVm(calls.openKvm(), 0);
 */

export { EmulatedKernel, type EmulatedKernelOptions } from './backends/emulated.ts';
export { loadNative, type NativeLoad } from './backends/native.ts';
export { type OpenedCalls, type OpenOptions, openCalls } from './backends/open.ts';
export { checked } from './calls/checked.ts';
export * from './calls/kvm-calls.ts';
export type { TraceObserver } from './calls/names.ts';
export { type TraceOptions, type TraceSink, traced } from './calls/recorder.ts';
export * from './calls/signatures.ts';
export * from './emulated/guest.ts';
export * from './uapi/index.ts';
