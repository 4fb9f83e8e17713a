import { describe, expect, it } from 'vitest';
import { ElfObject } from '../../../lib/lab/elf.ts';
import { patchS390xKvm } from '../../../lib/lab/s390x-kvm-patch.ts';
import { writeElf } from './synthetic-elf.ts';

const EM_S390 = 22;
const GOTENT = 26;

/** lgrl %r1,sclp; tm 1(%r1),bit; jne; then filler and the PLO loop's beginning: oill, lgfr, lgr, plo, ipm. */
function initCode({
  tm = '91401001',
  lgrl = 'c418',
  branch = 'a774000c',
  test = 'a50b0100',
  plo = 'ee0000000000',
} = {}): string {
  return `07070707${lgrl}00000000${tm}${branch}0707${test}b9140030b9040003${plo}b22200b0`;
}

const LGRL_AT = 4;
const TM_AT = LGRL_AT + 6;
const PLO_AT = TM_AT + 4 + 4 + 2 + 12;

function module(options: { code?: string; text?: string; machine?: number; symbol?: string; owner?: string } = {}) {
  const { code = initCode(), text = '', machine = EM_S390, symbol = 'sclp', owner = 'kvm_arch_init' } = options;
  const init = Buffer.from(code, 'hex');
  const body = Buffer.from(text, 'hex');
  return writeElf(machine, [
    { name: '.text', content: body, functions: [[owner, 0, body.length]] },
    { name: '.init.text', content: init, functions: [['init_module', 0, init.length]] },
    {
      name: '.rela.init.text',
      relocates: {
        name: '.init.text',
        entries: [
          [0, 20, '_printk'],
          [LGRL_AT + 2, GOTENT, symbol],
          [LGRL_AT + 16, GOTENT, 'sclp'],
        ],
      },
    },
  ]);
}

function initTextOf(bytes: Uint8Array): string {
  const elf = new ElfObject(bytes);
  return Buffer.from(elf.content(elf.section('.init.text'))).toString('hex');
}

describe('the change to the init code of kvm.ko for s390x', () => {
  it('turns the facility test into one that sets has_sief2 and has_cmma, and PLO into a no-op, and nothing else', () => {
    const original = module();
    const patched = patchS390xKvm(original);
    const expected = initCode({ tm: '96481001', plo: 'c00400000000' });
    expect(initTextOf(patched)).toBe(expected);
    const changed = [...original.keys()].filter((at) => original[at] !== patched[at]);
    const start = new ElfObject(original).section('.init.text').offset;
    expect(changed).toEqual([TM_AT, TM_AT + 1, PLO_AT, PLO_AT + 1].map((at) => start + at));
    expect(initTextOf(original)).toBe(initCode());
  });

  it('knows the bit of 6.1, and its PLO outside .init.text in a function that runs at load time only', () => {
    const loop = 'a51b0100b9140011b9040001ee0000000000b2220010';
    const original = module({ code: initCode({ tm: '91801001', plo: '070707070707' }), text: loop });
    const patched = patchS390xKvm(original);
    expect(initTextOf(patched)).toBe(initCode({ tm: '96901001', plo: '070707070707' }));
    const elf = new ElfObject(patched);
    expect(Buffer.from(elf.content(elf.section('.text'))).toString('hex')).toBe(
      loop.replace('ee0000000000', 'c00400000000'),
    );
  });

  it.each([
    ['another architecture', module({ machine: 21 }), 'not an s390x module'],
    ['no reference to sclp where it is expected', module({ symbol: 'other' }), 'not loaded with lgrl'],
    ['an address loaded otherwise', module({ code: initCode({ lgrl: 'c010' }) }), 'not loaded with lgrl'],
    ['an instruction other than tm', module({ code: initCode({ tm: '95401001' }) }), 'does not test has_sief2'],
    ['a bit that no known kernel uses', module({ code: initCode({ tm: '91201001' }) }), 'does not test has_sief2'],
    ['a test of another byte', module({ code: initCode({ tm: '91401002' }) }), 'not in the byte at sclp + 1'],
    ['a test through another register', module({ code: initCode({ tm: '91402001' }) }), 'not in the byte at sclp + 1'],
    ['another branch', module({ code: initCode({ branch: 'a784000c' }) }), 'not followed by jne'],
    ['no PLO', module({ code: initCode({ plo: '070707070707' }) }), '0 PLO instructions'],
    ['no test bit before the PLO', module({ code: initCode({ test: '07070707' }) }), 'sets the test bit'],
    ['two PLOs', module({ text: 'a50b0100ee0000000000b222' }), '2 PLO instructions'],
    [
      'a PLO in code that runs later',
      module({ text: 'a50b0100ee0000000000b222', owner: 'kvm_s390_plo' }),
      'outside its init code',
    ],
  ])('refuses a module with %s', (_, bytes, reason) => {
    expect(() => patchS390xKvm(bytes)).toThrow(reason);
  });
});
