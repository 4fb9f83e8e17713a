/** The registers of an s390x vCPU by name. */

type Number16 = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;
type GeneralRegister = `r${Number16}`;
type AccessRegister = `a${Number16}`;
type ControlRegister = `cr${Number16}`;

export type S390xRegName = 'pswMask' | 'pswAddress' | 'prefix' | GeneralRegister | AccessRegister | ControlRegister;

/** PSW, prefix, general registers r0 to r15, access registers a0 to a15 (32 bits), control registers cr0 to cr15. */
export type S390xRegs = Record<S390xRegName, bigint>;

const sixteen = <Prefix extends string>(prefix: Prefix): `${Prefix}${Number16}`[] =>
  Array.from({ length: 16 }, (_, n) => `${prefix}${n as Number16}` as const);

export const GENERAL_REGISTERS: readonly GeneralRegister[] = sixteen('r');
export const ACCESS_REGISTERS: readonly AccessRegister[] = sixteen('a');
export const CONTROL_REGISTERS: readonly ControlRegister[] = sixteen('cr');

export const S390X_REG_NAMES: readonly S390xRegName[] = [
  'pswMask',
  'pswAddress',
  'prefix',
  ...GENERAL_REGISTERS,
  ...ACCESS_REGISTERS,
  ...CONTROL_REGISTERS,
];

/** Whether a register has 32 bits. */
export const isNarrow = (name: S390xRegName): boolean => name === 'prefix' || /^a\d/.test(name);
