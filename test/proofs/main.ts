import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadNative } from '../../lib/backends/native.ts';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { networkUnderQemu } from './network-under-qemu.ts';
import { backEndUnderQemu, QEMU } from './vhost-user-back-end.ts';

// npm run prove: other people's programs use what we share with them. Exits with 1 when anything is not as it must be.

interface Proof {
  readonly name: string;
  readonly program: string;
  run(calls: KvmCalls, folder: string): Promise<boolean>;
}

const PROOFS: readonly Proof[] = [
  { name: 'our vhost-user back end under QEMU, while it migrates', program: QEMU, run: backEndUnderQemu },
  { name: 'our network card under QEMU, whose firmware boots from it', program: QEMU, run: networkUnderQemu },
];

const loaded = loadNative();
for (const { name, program, run } of PROOFS) {
  console.log(`== ${name}`);
  if (!('calls' in loaded)) {
    console.log(`Left out: ${loaded.reason}`);
  } else if (spawnSync(program, ['--version']).error !== undefined) {
    console.log(`Left out: there is no ${program}.`);
  } else {
    const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-proof-'));
    try {
      const isRight = await run(loaded.calls, folder);
      console.log(isRight ? 'as it must be' : 'WRONG');
      if (!isRight) process.exitCode = 1;
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
}
