// Kicks guests where no signal can be queued any more: RLIMIT_SIGPENDING counts those of all processes of the user.
import { execFileSync } from 'node:child_process';
import { calls, spinningVcpu } from './addon.mjs';

const EINTR = -4;
const EAGAIN = -11;
const HIGH = 1000;
const limit = (signals) => execFileSync('prlimit', ['--pid', String(process.pid), `--sigpending=${signals}:`]);
const late = (why) => new Promise((_, reject) => setTimeout(reject, 5000, new Error(why)).unref());

limit(HIGH);
const { vcpu, release } = spinningVcpu();
for (const signals of [HIGH, 0, 0]) {
  limit(signals);
  const run = calls.runAsync(vcpu);
  await new Promise((turn) => setTimeout(turn, 50));
  calls.kick(vcpu);
  const ended = await Promise.race([run, late('the guest does not end')]);
  if (ended !== EINTR) throw new Error(`a kick gave ${ended}`);
}
const begun = performance.now();
calls.runAsync(vcpu);
calls.close(vcpu);
if (performance.now() - begun > 900) throw new Error('closing took as long as it has patience');
release();

// One that nobody could get out is not begun.
const other = spinningVcpu();
const refused = await calls.runAsync(other.vcpu);
if (refused !== EAGAIN) throw new Error(`without a signal a run gave ${refused}`);
limit(HIGH);
const run = calls.runAsync(other.vcpu);
calls.kick(other.vcpu);
if ((await Promise.race([run, late('the second guest does not end')])) !== EINTR) throw new Error('no EINTR');
calls.close(other.vcpu);
other.release();
