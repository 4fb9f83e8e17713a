import { describe, expect, it } from 'vitest';
import { runCommand } from '../../../lib/lab/command.ts';
import { isPresent } from '../../../lib/lab/host-tools.ts';
import { sentenceOf } from '../../../lib/lab/lab-error.ts';

describe.skipIf(!isPresent('setpriv'))('a program that fails (needs setpriv)', () => {
  const failing = (lines: string) => runCommand('sh', ['-c', `printf '${lines}' >&2; exit 2`]);

  it('is quoted with the line that says why', async () => {
    await expect(failing('a warning\\ntool: error: no such thing\\nmore\\n')).rejects.toThrow(
      'sh failed: tool: error: no such thing',
    );
    await expect(failing('a warning\\nlast words\\n')).rejects.toThrow('sh failed: last words');
    await expect(failing('')).rejects.toThrow('sh failed: exit status 2');
  });

  it('for want of room says so, whatever else it says', async () => {
    const words =
      'tar: ./x: Cannot write: No space left on device\\ntar: Exiting\\ndpkg-deb: error: tar subprocess failed\\n';
    const sentence = await failing(words).catch(sentenceOf);
    expect(sentence).toBe('the disk is full (sh failed: tar: ./x: Cannot write: No space left on device)');
  });
});
