// Attaches by a token of another process, and prints how that is refused.
import { AddressSpace, type SpaceToken } from '../../../../lib/index.ts';
import { loadNative } from '../../../../lib/raw.ts';

const native = loadNative();
if (!('calls' in native)) throw native.error;
const token = JSON.parse(process.argv[2]!) as Omit<SpaceToken, 'inode'> & { readonly inode: string };
AddressSpace.attach(native.calls, { ...token, inode: BigInt(token.inode) }).then(
  () => console.log('attached'),
  (error: Error) => console.log(String(error)),
);
