import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { join } from 'node:path';
import type { Json } from '../../../lib/lab/frames.ts';
import { GUEST_ROOT } from '../job.ts';

/** What there is in the guest: shows that the lab itself works. */
export default function probe(): Json {
  const addon = join(GUEST_ROOT, 'build/Release/kvm_bridge.node');
  return {
    arch: process.arch,
    endianness: endianness(),
    node: process.version,
    pageSize: pageSize(),
    uname: execFileSync('uname', ['-a'], { encoding: 'utf8' }).trim(),
    kvm: opening('/dev/kvm'),
    addon: existsSync(addon) ? loading(addon) : 'absent',
  };
}

/** The kernel's page size in bytes. */
function pageSize(): number {
  return Number(/^KernelPageSize:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/smaps', 'utf8'))?.[1]) * 1024;
}

function opening(path: string): string {
  try {
    closeSync(openSync(path, 'r+'));
    return 'opens';
  } catch (error) {
    return (error as Error).message;
  }
}

function loading(path: string): string {
  const module = { exports: {} };
  try {
    process.dlopen(module, path);
    return `loads, with ${Object.keys(module.exports).length} exports`;
  } catch (error) {
    return (error as Error).message;
  }
}
