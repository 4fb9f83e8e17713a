// Uses an address space by its token, as it is told: attaches, writes bytes, has views, lets go; or writes until it is killed.
import { parentPort } from 'node:worker_threads';
import { AddressSpace, type Binding, type SpaceToken, type Vmap } from '../../lib/index.ts';
import { loadNative } from '../../lib/raw.ts';

/** What it can be told of its view of 64 bytes. */
export type ViewTask =
  | { readonly does: 'view'; readonly gpa: number }
  | { readonly does: 'store'; readonly value: number }
  | { readonly does: 'flush' | 'end view' };

/** What it can be told. */
export type WorkerTask =
  | ViewTask
  | { readonly does: 'attach'; readonly token: SpaceToken }
  | { readonly does: 'release' }
  | { readonly does: 'write' | 'storm'; readonly gpa: number; readonly value: number };

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
let binding: Binding | undefined;
let view: Vmap | undefined;

/** Whether it was done: a view may be revoked. */
async function answer(task: WorkerTask): Promise<boolean> {
  switch (task.does) {
    case 'attach':
      binding = await AddressSpace.attach(calls, task.token, { name: 'worker' });
      return true;
    case 'release':
      binding!.release();
      view = undefined;
      return true;
    case 'write':
      binding!.writeU8(task.gpa, task.value);
      return true;
    case 'storm':
      parentPort!.postMessage(true);
      for (const bytes = new Uint8Array(64).fill(task.value); ; ) binding!.copyTo(task.gpa, bytes);
    case 'view':
      view?.release();
      view = binding!.vmap(task.gpa, 64, { write: true });
      return true;
    case 'store':
      if (view?.active !== true) return false;
      view.bytes.fill(task.value);
      return true;
    case 'flush':
      if (view?.active === true) view.flush();
      return true;
    case 'end view':
      view?.release();
      return true;
  }
}

parentPort!.on('message', async (task: WorkerTask) => parentPort!.postMessage(await answer(task)));
parentPort!.postMessage('ready');
