// Serves a disk without content at a socket's path until its first front end has gone, and says how many requests there were.
import { UnixListener } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';
import { BLOCK, VhostUserBackEnd } from '../../../../lib/vhost-user/index.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
let requests = 0;
const backEnd = new VhostUserBackEnd(calls, {
  queues: 1,
  handle(chain) {
    requests++;
    chain.write(chain.writableLength - 1, Uint8Array.of(BLOCK.OK));
    return chain.writableLength;
  },
});
using listener = UnixListener.listen(calls, process.argv[2]!);
console.log('ready');
await backEnd.serve(await listener.accept()).catch(() => {});
console.log(requests > 0 ? 'served' : 'nothing was asked');
