/** What nobody means to give: values of every type, and numbers at the ends of every range. */
export const WRONG_VALUES: readonly (readonly [name: string, value: unknown])[] = [
  ['undefined', undefined],
  ['null', null],
  ['true', true],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['1.5', 1.5],
  ['-1', -1],
  ['3', 3],
  ['2 ** 31', 2 ** 31],
  ['2 ** 53 - 1', 2 ** 53 - 1],
  ['2 ** 53', 2 ** 53],
  ['1n', 1n],
  ['-1n', -1n],
  ['2n ** 63n', 2n ** 63n],
  ['2n ** 64n - 1n', 2n ** 64n - 1n],
  ['2n ** 64n', 2n ** 64n],
  ["''", ''],
  ["'x'", 'x'],
  ["'nul\\0inside'", 'nul\0inside'],
  ['{}', {}],
  ['[]', []],
  ["['x', null]", ['x', null]],
  ['[-1, 0.5]', [-1, 0.5]],
  ['an object without prototype', Object.create(null)],
  ['a proxy', new Proxy({}, {})],
  ['a symbol', Symbol('s')],
  ['a function', () => 0],
  ['a class', class Some {}],
  ['a date', new Date(0)],
  ['a map', new Map()],
  ['an array buffer', new ArrayBuffer(8)],
  ['an empty array of bytes', new Uint8Array(0)],
  ['three bytes', new Uint8Array(3)],
  ['a detached array of bytes', detached()],
  ['an array of doubles', new Float64Array([Number.NaN, -1])],
  ['a DataView', new DataView(new ArrayBuffer(8))],
];

/** One of each kind that is refused otherwise: by its type, its sign, its fraction, its size, what is in it. */
export const FEW_WRONG_VALUES = WRONG_VALUES.filter(([name]) =>
  ['a symbol', '-1', '1.5', '2n ** 64n', "'nul\\0inside'", '{}', "['x', null]", 'three bytes'].includes(name),
);

/** What no number is. */
export const NO_NUMBERS = WRONG_VALUES.filter(([, value]) => !['undefined', 'number', 'bigint'].includes(typeof value));

function detached(): Uint8Array {
  const bytes = new Uint8Array(8);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}
