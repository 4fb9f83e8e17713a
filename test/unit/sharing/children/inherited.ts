// Has a memfd as descriptor 3.
import { Descriptor } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const own = Descriptor.duplicate(native.calls, 3);
const seals = native.calls.sharing!.getSeals(own.fd);
console.log(`sealed ${seals}, of our own: ${own.fd > 3 && native.calls.close(3) === -9}`);
