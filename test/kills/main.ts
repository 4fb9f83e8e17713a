// Kills those who share an address space, in every state, and sees that the rest is right: `npm run test:kills -- [COUNT]`.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { AddressSpace, type ConsumerEvent, Kvm, Mapping } from '../../lib/index.ts';
import { loadNative } from '../../lib/raw.ts';
import { compile } from '../unit/sharing/compile.ts';
import { killBackEnds } from './back-ends.ts';
import { killFrontEnds } from './front-ends.ts';
import { killOwners } from './owners.ts';

const MIB = 2 ** 20;
const count = Number(process.argv[2] ?? 1000);
const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
const openFiles = (): number => readdirSync('/proc/self/fd').length;

const program = compile('consumer');
const space = new AddressSpace({ littleEndian: true, pageSize: 4096 });
const rams = [Mapping.memfd(calls, MIB), Mapping.memfd(calls, MIB)];
const regions = rams.map((ram, i) => space.addRam(4 * i * MIB, ram));
const events: ConsumerEvent[] = [];
space.share({ onConsumer: (event) => events.push(event) });
const kvm = Kvm.open({ backend: 'emulated', arch: 'x86_64' });
const [source, target] = [kvm.createVm(), kvm.createVm()];
source.bind(space);
const dirty = source.dirtyPages.start();
const copies = rams.map((_, i) => target.memory.addRam(4 * i * MIB, kvm.mapAnonymous(MIB)));
let seed = 1;
const random = (below: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
};

let copied = 0;
function pass(): void {
  for (const { gfn, npages } of dirty.collect().runs()) {
    target.memory.writeExact(gfn * 4096, space.readExact(gfn * 4096, npages * 4096));
    copied += npages;
  }
}

function move(): void {
  const which = random(2);
  const gpa = (4 * which + random(3)) * MIB;
  regions[which]!.move(gpa);
  copies[which]!.move(gpa);
}

/** Passes and moves meanwhile. */
async function sleep(ms: number): Promise<void> {
  const until = performance.now() + ms;
  while (performance.now() < until) {
    if (random(3) === 0) move();
    pass();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Starts a consumer that writes without end, and kills it after a while. */
async function killConsumer(): Promise<void> {
  const child = spawn(program.path, [String(random(2 ** 31))], {
    stdio: ['ignore', 'ignore', 'inherit', ...space.descriptors],
  });
  const exited = once(child, 'exit');
  await sleep(random(12));
  child.kill('SIGKILL');
  const [, signal] = (await exited) as [number | null, string | null];
  if (signal !== 'SIGKILL') throw new Error(`a consumer ended by itself, signal ${signal}`);
  if (space.consumers.length !== 0) throw new Error(`the death of a consumer was not noticed`);
  await space.settled({ timeoutMs: 0 });
  pass();
  for (const [i, region] of regions.entries()) {
    const [theirs, ours] = [space, target.memory].map((memory) => memory.readExact(region.gpa, MIB)) as [
      Uint8Array,
      Uint8Array,
    ];
    if (Buffer.compare(theirs, ours) !== 0) throw new Error(`region ${i} was not copied whole`);
  }
}

const started = performance.now();
await killConsumer();
const files = openFiles();
for (let i = 1; i < count; i++) {
  await killConsumer();
  if (i % 100 === 0) console.log(`${i} of ${count}`);
}
if (openFiles() !== files) throw new Error(`${openFiles()} descriptors are open, and there were ${files}`);
const died = events.filter(({ kind }) => kind === 'died');
console.log(`${count} consumers killed in ${Math.round((performance.now() - started) / 1000)} s:`);
console.log(
  `  ${died.length} of them held a place, ${died.filter(({ allDirty }) => allDirty).length} in the middle of a write`,
);
console.log(`  ${space.generation - 2} moves meanwhile, ${copied} pages copied, none missed, no descriptor left`);
source.close();
target.close();
space.close();
for (const ram of rams) ram.close();
kvm.close();
program.remove();
await killOwners(calls, Math.ceil(count / 20), random);
await killFrontEnds(calls, count, random);
await killBackEnds(calls, Math.ceil(count / 4), random);
