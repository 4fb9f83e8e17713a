// A consumer in a process of its own. argv: a socket's path, or nothing for descriptors 3 and up; then `storm` for stores without end.
import { readdirSync } from 'node:fs';
import { AddressSpace, UnixConnection } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const { calls } = native;
const [path = '', todo = ''] = process.argv.slice(2);

const say = (text: string) => process.send!(text);
const source =
  path === ''
    ? readdirSync('/proc/self/fd')
        .map(Number)
        .filter((fd) => fd >= 4 && fd < 4 + Number(process.env.COUNT))
    : await UnixConnection.connect(calls, path);
const binding = await AddressSpace.attach(calls, source, {
  name: 'child',
  onChange: (generation) => say(`generation ${generation}`),
  onEnd: (reason) => {
    // The memory still reads.
    say(`end ${reason} ${binding.readU32(0x100)}`);
    process.disconnect();
    binding.release();
  },
});
const vmap = binding.vmap(0x5000, 4, { write: true, onRevoke: ({ reason }) => say(`revoked ${reason}`) });
say(`attached ${binding.regions.length}`);
process.on('message', (message: string) => {
  const [command, gpa = '0', value = '0'] = message.split(' ');
  if (command === 'write') {
    binding.writeU32(Number(gpa), Number(value));
    say('written');
  } else if (command === 'read') say(String(binding.readU32(Number(gpa))));
  else if (command === 'flush') {
    vmap.bytes[0] = 1;
    vmap.flush();
    say('flushed');
  } else if (command === 'release') {
    vmap.release();
    binding.release();
    process.disconnect();
  }
});
if (todo === 'storm') for (let i = 0; ; i++) binding.writeU32(0x1000 * (i % 200), i);
