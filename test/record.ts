import { loadNative } from '../lib/backends/native.ts';
import { compareWithEmulated, comparisonTable } from './scenarios/compare.ts';
import { whyNoKvm } from './scenarios/real-host.ts';
import { RECORDINGS, writeRecordings } from './scenarios/recording.ts';
import { takeRecordings } from './scenarios/take.ts';

// npm run record -- ID: writes what this machine's own kernel answers into test/recordings/ID.

const [id] = process.argv.slice(2);
const loaded = loadNative();
const missing = whyNoKvm(loaded);
if (id === undefined || !/^[\w.-]+$/.test(id)) {
  console.error('usage: npm run record -- ID, where ID names the set, such as x86_64-6.18-pvm');
  process.exitCode = 2;
} else if (missing !== undefined || !('calls' in loaded)) {
  console.error(missing);
  process.exitCode = 1;
} else {
  const set = await takeRecordings(loaded.calls, () => {});
  writeRecordings(RECORDINGS, id, set, `npm run record -- ${id}`);
  console.log(comparisonTable(await compareWithEmulated(set)));
}
