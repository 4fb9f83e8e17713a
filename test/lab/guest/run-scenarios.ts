import { loadNative } from '../../../lib/calls/native.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';
import { takeRecordings } from '../../scenarios/take.ts';
import type { Json } from '../frames.ts';

/** Runs every scenario on the guest's own KVM; the result is a `TakenSet`. */
export default async function runScenarios(_args: Json, progress: (text: string) => void): Promise<Json> {
  const loaded = loadNative();
  const missing = whyNoKvm(loaded);
  if (missing !== undefined || !('calls' in loaded)) throw new Error(missing);
  return JSON.parse(JSON.stringify(await takeRecordings(loaded.calls, progress))) as Json;
}
