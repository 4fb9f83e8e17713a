// Another process uses a guest's memory, and writes to it while the memory is migrated to a second VM.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { AddressSpace, Mapping } from 'kvm-bridge';
import { openKvm } from './support/guest.mjs';
import { addonCalls, copyDirtyPages, report } from './support/sharing.mjs';

const SIZE = 4 << 20;
const WRITES = 20_000;
const calls = addonCalls();

if (process.argv[2] === 'child') await consume();
else await own();

/** The other process: it has inherited the table as descriptor 4, and the memory as 5; it needs nothing of KVM. */
async function consume() {
  const binding = await AddressSpace.attach(calls, [4, 5], { name: 'disk' });
  for (let i = 0; i < WRITES; i++) {
    const page = (i * 7919) % (SIZE / 4096);
    binding.writeU32(page * 4096 + 16, i);
    // Gives the other side time now and then.
    if (i % 1000 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const buffer = binding.vmap(0, 4096, { write: true });
  buffer.bytes.fill(0xd1);
  buffer.release();
  binding.release();
  process.disconnect();
}

async function own() {
  const kvm = openKvm();
  const { pageSize } = kvm;
  const space = new AddressSpace({ littleEndian: true, pageSize });
  const ram = Mapping.memfd(calls, SIZE);
  space.addRam(0, ram);
  space.share();
  const source = kvm.createVm();
  const target = kvm.createVm();
  source.bind(space);
  target.memory.addRam(0, kvm.mapAnonymous(SIZE));
  const dirty = source.dirtyPages.start();

  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), 'child'], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc', ...space.descriptors],
  });
  let passes = 0;
  let copied = 0;
  while (child.exitCode === null && child.signalCode === null) {
    copied += copyDirtyPages(dirty, space, target.memory);
    passes++;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  if (child.exitCode === null) await once(child, 'exit');
  copied += copyDirtyPages(dirty, space, target.memory);

  const different = Buffer.compare(space.readExact(0, SIZE), target.memory.readExact(0, SIZE));
  report('exit status of the other process', child.exitCode, 0);
  report('passes', passes + 1);
  report('pages copied', copied);
  report('first byte of the buffer', space.readU8(0), 0xd1);
  report('difference between the two VMs', different, 0);
  report('consumers left', space.consumers.length, 0);
  source.close();
  target.close();
  space.close();
  ram.close();
  kvm.close();
}
