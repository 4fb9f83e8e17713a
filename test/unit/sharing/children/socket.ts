// The other end of a socket: writes into the memory it is sent, and dies in the middle of a message.
import { writeSync } from 'node:fs';
import { type Descriptor, UnixConnection } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const connection = await UnixConnection.connect(native.calls, process.argv[2]!);
const descriptors: Descriptor[] = [];
const message = new Uint8Array(64);
await connection.receive(message, descriptors);
writeSync(descriptors[0]!.fd, 'the child', 0);
await connection.send(Buffer.from('written'));
await connection.receive(message, descriptors);
await connection.send(new Uint8Array(50));
process.kill(process.pid, 'SIGKILL');
