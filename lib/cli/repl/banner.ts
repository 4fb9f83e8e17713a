import { wrap } from '../../base/text.ts';
import type { Kvm } from '../../handles/kvm.ts';
import { whyNotReal } from '../doctor/index.ts';
import { columnsOf, type Io, styleFor } from '../io.ts';
import { packageVersion } from '../package-info.ts';
import type { Session } from '../session.ts';

/** What the prompt begins with. */
export function banner(io: Io, { kvm, fallbackReason, loaded }: Session): string {
  const style = styleFor(io.stdout, io.env);
  const lines = [`${style.bold(`kvm-bridge ${packageVersion()}`)}: ${describeKernel(kvm)}`];
  if (fallbackReason !== undefined) {
    const { why, mend } = whyNotReal() ?? { why: fallbackReason };
    lines.push(...wrap(`Not the real one: ${why}`, columnsOf(io.stdout)).map(style.yellow));
    if (mend !== undefined) lines.push(`  ${style.cyan(`→ ${mend}`)}`);
  }
  if (loaded !== undefined) lines.push(...wrap(loaded, columnsOf(io.stdout)));
  const help = 'kvm and vm are ready; .examples shows lines to try, .help the commands';
  lines.push(...wrap(help, columnsOf(io.stdout)).map(style.dim));
  return `${lines.join('\n')}\n`;
}

/** `x86_64, the real kernel (API 12)`. */
export function describeKernel(kvm: Kvm): string {
  return kvm.backend === 'native'
    ? `${kvm.arch}, the real kernel (API ${kvm.getApiVersion()})`
    : `${kvm.arch}, the emulated kernel ${kvm.emulated?.release ?? ''}`;
}
