// Calls every function with arguments that make no sense, thousands of times, and then checks that the addon still works.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calls, spinningVcpu } from './addon.mjs';

const seed = Number(process.argv[2] ?? 1);
const rounds = Number(process.argv[3] ?? 100);
const trace = process.argv[4] === 'trace';

let state = seed >>> 0;
function random(below) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

// Any text is a path to somebody.
const folder = mkdtempSync(join(tmpdir(), 'kvm-bridge-garbage-'));
process.chdir(folder);
const { kvm, vm, vcpu, run } = spinningVcpu();
const memfd = calls.memfdCreate('garbage', 0x10000, 0);
const event = calls.eventfd(0);
const ram = calls.mmap(0x10000, 3, 0x22, -1, 0, 0, 0);
const ends = new Int32Array(2);
calls.sharing.socketPair(1, ends);
const detached = new Uint8Array(16);
structuredClone(detached.buffer, { transfer: [detached.buffer] });
const frozenGetter = Object.defineProperty([1, 2], '0', {
  get() {
    throw new Error('a getter that throws');
  },
});

const garbage = [
  ...[
    undefined,
    null,
    true,
    false,
    '',
    'text',
    'nul\0inside',
    Symbol('s'),
    () => 0,
    {},
    [],
    [1, 2, 3, 4, 5],
    [1n, 'x'],
  ],
  ...[
    Number.NaN,
    Infinity,
    -Infinity,
    -0,
    0.5,
    -1,
    -1.5,
    1e300,
    5e-324,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    2 ** 53 - 1,
    2 ** 64,
  ],
  ...[-1n, 0n, 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n, -(2n ** 63n), 2n ** 200n],
  ...[new Date(), /x/, new Map(), new Proxy({}, {}), new Proxy([], {}), new Proxy(() => 0, {}), Object.create(null)],
  ...[new Uint8Array(0), new Uint8Array(1), new Uint8Array(4096), Buffer.alloc(64), detached, new Uint8Array(1 << 20)],
  ...[
    new Uint8Array(new SharedArrayBuffer(64)),
    new Uint8ClampedArray(8),
    new Int8Array(8),
    new DataView(new ArrayBuffer(8)),
  ],
  ...[
    new BigUint64Array(0),
    new BigUint64Array(3),
    new Float64Array(3),
    new Float64Array([ram, Number.NaN, -1, 1e308]),
  ],
  ...[
    new Uint32Array(4),
    new Int32Array(0),
    new Int32Array([event, -1, ...ends]),
    new Uint32Array([1, 2, 0xffffffff, 4]),
    new ArrayBuffer(8),
    frozenGetter,
    'x'.repeat(5000),
  ],
  ...[kvm, vm, vcpu, memfd, event, ...ends, ram, BigInt(ram), ram + 1, 1, 2, 0x22, 4096, 8],
];

const loops = [calls.htab, calls.bitmaps, calls.addresses, calls.storageKeys];
const functions = [calls, calls.x86_64, calls.s390x, calls.ppc64, calls.sharing, ...loops]
  .filter((group) => group !== undefined)
  .flatMap((group) => Object.entries(group))
  // A structure's own pointers are not checked: that is what its name says.
  .filter(([name, value]) => typeof value === 'function' && name !== 'ioctlUnchecked');

const guests = [kvm, vm, vcpu];
let thrown = 0;
let answered = 0;
const promises = [];

/** What a call says of its arguments: the number of the one that it doesn't take, from 1. */
function refusedArgument(error) {
  if (error.message === 'a getter that throws') return 4;
  const index = /argument (\d+) must be/.exec(error.message)?.[1];
  if (index === undefined || !['ERR_INVALID_ARG_TYPE', 'ERR_OUT_OF_RANGE'].includes(error.code)) throw error;
  return Number(index);
}

const isAnswer = (value) => typeof value === 'number' || value instanceof ArrayBuffer || value instanceof Uint8Array;

/** Exchanges the argument that is refused until all are taken, so that garbage of the right type gets in as well. */
function callUntilAnswered(name, call, args) {
  for (let attempt = 0; attempt < 60; attempt++) {
    // Only the descriptor may be right here: closing it or waiting for its guest would end the game.
    if (['close', 'run', 'runAsync'].includes(name) && guests.includes(args[0])) return;
    if (trace) console.error(name, ...args.map((arg) => (typeof arg === 'bigint' ? `${arg}n` : String(Object(arg)))));
    try {
      const answer = call(...args);
      if (answer instanceof Promise) promises.push(answer);
      else if (!isAnswer(answer)) throw new Error(`${name}: ${answer}`);
      answered++;
      if (creates.includes(name) && answer > 0) calls.close(answer);
      return;
    } catch (error) {
      args[refusedArgument(error) - 1] = garbage[random(garbage.length)];
      thrown++;
    }
  }
}

const creates = [
  ...['openKvm', 'createVm', 'createVcpu', 'eventfd', 'memfdCreate', 'createGuestMemfd'],
  ...['socketListen', 'socketConnect', 'socketAccept', 'duplicate', 'reopen'],
];
for (let round = 0; round < rounds; round++) {
  for (const [name, call] of functions) {
    callUntilAnswered(
      name,
      call,
      Array.from({ length: random(12) }, () => garbage[random(garbage.length)]),
    );
  }
}
run.setUint8(1, 1);
for (const request of [Number.NaN, -1, 2 ** 33, 'x', {}, null]) {
  try {
    calls.ioctlUnchecked(vm, request, 0);
  } catch {
    thrown++;
  }
}
for (const argument of [{}, null, undefined, 1.5, -1n, 'x', detached]) {
  try {
    calls.ioctlUnchecked(vm, 0x1234, argument);
  } catch {
    thrown++;
  }
}
for (const fd of [event, ...ends]) promises.push(calls.poll(fd, 0));
await Promise.all(promises);
rmSync(folder, { recursive: true });
const works = calls.getApiVersion(kvm, 0) === 12 && calls.run(vcpu, 0) === -4;
console.log(JSON.stringify({ thrown, answered, works }));
