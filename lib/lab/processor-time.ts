import { readdirSync, readFileSync } from 'node:fs';

const NS = 1e9;

/**
 * What a process did with its time, as the kernel's scheduler counts it: whether a guest that is late hangs, or this machine has other things
 * to do. Empty where that is not known.
 */
export function whereTimeWent(pid: number | undefined): string {
  const [ran, waited] = schedulerTimes(pid);
  if (ran === undefined || waited === undefined) return '';
  const seconds = (ns: number) => `${Math.round(ns / NS)} s`;
  return ` QEMU computed for ${seconds(ran)}, and waited ${seconds(waited)} for processors that others had.`;
}

/** Nanoseconds that all threads of a process ran, and were kept waiting although they could have run. */
export function schedulerTimes(pid: number | undefined): readonly [ran: number, waited: number] | readonly [] {
  try {
    const folder = `/proc/${pid}/task`;
    const times = readdirSync(folder).map((task) =>
      readFileSync(`${folder}/${task}/schedstat`, 'utf8').split(' ').map(Number),
    );
    const sum = (column: number) => times.reduce((total, each) => total + (each[column] ?? Number.NaN), 0);
    return [sum(0), sum(1)];
  } catch {
    return [];
  }
}
