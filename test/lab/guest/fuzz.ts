import { emulationOf } from '../../../lib/backends/emulation.ts';
import { loadNative } from '../../../lib/backends/native.ts';
import type { Json } from '../../../lib/lab/frames.ts';
import { fuzz } from '../../fuzz/fuzz.ts';
import { whyNoKvm } from '../../scenarios/real-host.ts';

/** Fuzzes the guest's own KVM against the emulated one, both in the guest; the result is a `FuzzResult`. */
export default async function fuzzInGuest(args: Json, progress: (text: string) => void): Promise<Json> {
  const options = args as { readonly seed: number; readonly operations: number; readonly topic?: string };
  const loaded = loadNative();
  const missing = whyNoKvm(loaded);
  if (missing !== undefined || !('calls' in loaded)) throw new Error(missing);
  const result = await fuzz(loaded.calls, emulationOf(loaded.calls), { ...options, progress });
  return JSON.parse(JSON.stringify(result)) as Json;
}
