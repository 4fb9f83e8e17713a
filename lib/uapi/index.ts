export * from './arch.ts';
export * from './capabilities.ts';
export * from './errno.ts';
export * from './flags.ts';
export * from './requests.ts';
export * from './slot-word.ts';
export * from './structs.ts';
