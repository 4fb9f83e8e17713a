// A guest that runs before its memory is restored: pages come from a file when it asks for them, the rest afterwards (userfaultfd). What was written since then
// is found without KVM's dirty log.
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PageFaults, TrackedWrites } from 'kvm-bridge';
import { halt, load, store } from 'kvm-bridge/raw';
import { hex, loadGuest, openKvm, u32 } from './support/guest.mjs';

const SIZE = 16 << 20;
const FIRST = 0x10_0000;
const SECOND = 0x20_0000;

/** The memory of a guest as it was saved: each page is full of its number. */
function save(file, pageSize) {
  const words = new Uint32Array(SIZE / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.floor((i * 4) / pageSize);
  writeFileSync(file, words);
  return new Uint8Array(words.buffer);
}

function check(what, isRight) {
  console.log(`${what}: ${isRight}`);
  if (!isRight) process.exitCode = 1;
}

/** What this machine lacks is said, and is no failure. */
function orSay(what, make) {
  try {
    return make();
  } catch (error) {
    if (!['EPERM', 'ENOSYS', 'EINVAL'].includes(error.code)) throw error;
    console.log(`Left out: ${what} (${error.code}: ${error.explanation})`);
    return undefined;
  }
}

const kvm = openKvm();
const { pageSize } = kvm;
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-restore-'));
const saved = save(join(folder, 'memory'), pageSize);
const file = openSync(join(folder, 'memory'), 'r');

const ram = kvm.mapMemfd(SIZE);
const vm = kvm.createVm();
vm.memory.addRam(0, ram);
const vcpu = vm.createVcpu();
loadGuest(vcpu, {
  // mov eax, [FIRST]; mov [SECOND], eax; hlt
  code: [0x66, 0x67, 0xa1, ...u32(FIRST), 0x66, 0x67, 0xa3, ...u32(SECOND), 0xf4],
  *program() {
    yield store(SECOND, 4, yield load(FIRST, 4));
    yield halt;
  },
});

const bytes = new Uint8Array(pageSize);
const missing = ({ offset, write }) => {
  console.log(`the guest ${write ? 'stores to' : 'loads from'} ${hex(offset)}`);
  readSync(file, bytes, 0, pageSize, offset);
  return bytes;
};
const faults = orSay('no pages can be served here', () => new PageFaults(ram, { missing }));
if (faults !== undefined) {
  await vcpu.run();
  const number = vm.memory.readU32(SECOND);
  check(`it has copied ${hex(number)}, the number of the page at ${hex(FIRST)}`, number === FIRST / pageSize);

  // The guest could go on meanwhile.
  let restored = 0;
  for (let offset = 0; offset < SIZE; ) {
    const brought = faults.copy(offset, saved.subarray(offset));
    restored += brought / pageSize;
    offset += brought || pageSize;
  }
  faults.close();
  console.log(`${restored} pages were restored that nobody had asked for`);
  const differ = [];
  const memory = vm.memory.readExact(0, SIZE);
  for (let offset = 0; offset < SIZE; offset += pageSize) {
    if (Buffer.compare(memory.subarray(offset, offset + pageSize), saved.subarray(offset, offset + pageSize)) !== 0)
      differ.push(offset);
  }
  // On the real kernel there is machine code in page 1.
  const isRight = differ.at(-1) === SECOND && differ.every((offset) => offset === SECOND || offset === pageSize);
  check(`the rest is as it was saved, but for ${differ.map(hex).join(' and ')}`, isRight);
}

const writes = orSay("writes can't be tracked here", () => new TrackedWrites(ram));
if (writes !== undefined) {
  vm.memory.writeU8(FIRST, 1);
  vm.memory.slice(SECOND, 4).fill(2);
  const runs = writes.collect().runs();
  const written = runs.map(({ offset, length }) => `${length} bytes at ${hex(offset)}`).join(', ');
  check(`written since then: ${written}`, runs.length === 2 && runs[0].offset === FIRST && runs[1].offset === SECOND);
  writes.close();
}

vm.close();
ram.close();
kvm.close();
closeSync(file);
rmSync(folder, { recursive: true });
