import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { decodeHtabStream, encodeHtabStream } from '../../../lib/arch/ppc64/model/index.ts';

const CAPTURE = new URL('../../captures/ppc64-hpt-linux-6.12/htab.stream.gz', import.meta.url);

/** The first sixteenth of a captured table, which is as much as the smallest table has: 3 s less for each report of it. */
export const smallStream = (): Uint8Array =>
  encodeHtabStream(decodeHtabStream(gunzipSync(readFileSync(CAPTURE))), { to: 0x4000 });
