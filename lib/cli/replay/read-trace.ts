import { isIntegerIn } from '../../base/arguments.ts';
import { lengthOfText } from '../../calls/format.ts';
import { CALL_GROUPS, type ParameterKind, type Signature, signaturesOf } from '../../calls/signatures.ts';
import { TRACE_VERSION, type TraceCall, type TraceHead } from '../../calls/trace-file.ts';

/** A file that is no trace, or not one that can be replayed; with the line, where it is one line's fault. */
export class TraceFileError extends Error {
  override readonly name = 'TraceFileError';
}

/** A line of a trace, with its number. */
export interface TraceLine {
  readonly line: number;
  /** A head is there for each time that a kernel was opened. */
  readonly head?: TraceHead;
  readonly event?: TraceCall;
}

/** Characters of a line. The longest that is written has the bytes of one call. */
const MOST_LINE = 2 ** 28;

/** The lines of a trace. @throws TraceFileError; what reading its bytes throws */
export async function* readTrace(input: AsyncIterable<Uint8Array>): AsyncGenerator<TraceLine, void, undefined> {
  let line = 0;
  for await (const text of linesOf(input)) {
    line++;
    if (text.trim() !== '') yield { line, ...parse(text, line) };
  }
}

/** @throws TraceFileError for a line that has no end */
async function* linesOf(input: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let parts: string[] = [];
  let held = 0;
  for await (const bytes of input) {
    const piece = decoder.decode(bytes, { stream: true });
    let from = 0;
    for (let end = piece.indexOf('\n'); end >= 0; end = piece.indexOf('\n', from)) {
      parts.push(piece.slice(from, end));
      yield parts.join('');
      [parts, held, from] = [[], 0, end + 1];
    }
    parts.push(piece.slice(from));
    held += piece.length - from;
    if (held > MOST_LINE) throw new TraceFileError(`a line of more than ${MOST_LINE} characters is no trace's`);
  }
  if (held > 0) yield parts.join('');
}

const NOT_ONE = 'this is no trace: --trace-out FILE and Kvm.open({ record }) make one';

function parse(text: string, line: number): Omit<TraceLine, 'line'> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new TraceFileError(`line ${line}: ${line === 1 ? NOT_ONE : (error as Error).message}`);
  }
  if (typeof value === 'object' && value !== null) {
    if ('kvm-bridge-trace' in value) return { head: headOf(value as TraceHead, line) };
    if ('call' in value) return { event: callOf(value as TraceCall, line) };
  }
  throw new TraceFileError(`line ${line}: ${line === 1 ? NOT_ONE : 'there is no call in it'}`);
}

function headOf(head: TraceHead, line: number): TraceHead {
  const version = head['kvm-bridge-trace'];
  if (version !== TRACE_VERSION) {
    const which = typeof version === 'number' ? version : 'of another kind';
    throw new TraceFileError(`line ${line}: the trace has format ${which}, and format ${TRACE_VERSION} is read here`);
  }
  return whole(head, HEAD, line);
}

function callOf(call: TraceCall, line: number): TraceCall {
  whole(call, CALL, line);
  const signature = SIGNATURES.get(call.call);
  if (call.filled !== undefined && signature !== undefined) checkFilled(call, signature, line);
  return call;
}

const SIGNATURES: ReadonlyMap<string, Signature> = new Map(
  [undefined, ...CALL_GROUPS].flatMap((group) => Object.entries(signaturesOf(group))),
);
const FILLED_BYTES: ReadonlySet<ParameterKind> = new Set<ParameterKind>(['out', 'inout']);

/** A call fills the array that it was given, whose length stays. @throws TraceFileError */
function checkFilled({ call, args, filled = {} }: TraceCall, { parameters }: Signature, line: number): void {
  for (const [i, [name, kind]] of parameters.entries()) {
    const [given, after] = [args[i], Object.hasOwn(filled, name) ? filled[name] : undefined];
    if (!FILLED_BYTES.has(kind) || typeof given !== 'string' || typeof after !== 'string') continue;
    const [room, bytes] = [given, after].map((text) => lengthIn(text, line));
    if (bytes === room) continue;
    throw new TraceFileError(`line ${line}: ${call} was given ${room} bytes for its ${name}, and has filled ${bytes}`);
  }
}

function lengthIn(text: string, line: number): number {
  try {
    return lengthOfText(text, Number.MAX_SAFE_INTEGER);
  } catch (error) {
    throw new TraceFileError(`line ${line}: ${(error as Error).message}`);
  }
}

type Shape = Readonly<Record<string, (value: unknown) => boolean>>;

/** What others rely on, so that nobody behind this meets something else. @throws TraceFileError */
function whole<T extends object>(value: T, shape: Shape, line: number): T {
  for (const [name, isRight] of Object.entries(shape)) {
    const part: unknown = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
    if (!isRight(part)) throw new TraceFileError(`line ${line}: its "${name}" is none of a trace`);
  }
  return value;
}

const isText = (value: unknown): boolean => typeof value === 'string';
const isScalar = (value: unknown): boolean => value === null || typeof value === 'number' || isText(value);
const isListOf = (isRight: (value: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.every(isRight);
const isList = isListOf(isScalar);
const isValue = (value: unknown): boolean => isScalar(value) || isList(value);
const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);
const isRecordOf = (isRight: (value: unknown) => boolean) => (value: unknown) =>
  isObject(value) && Object.values(value as object).every(isRight);
const isNumber = (value: unknown): boolean => isIntegerIn(value as number, 0, Number.MAX_SAFE_INTEGER);
const isPiece = (value: unknown): boolean =>
  Array.isArray(value) && value.length === 2 && isNumber(value[0]) && isText(value[1]);
const isPieces = isListOf(isPiece);
const orNone = (isRight: (value: unknown) => boolean) => (value: unknown) => value === undefined || isRight(value);

const HEAD: Shape = {
  backend: orNone(isText),
  arch: orNone(isText),
  release: orNone(isText),
  pageSize: orNone((size) => size === 4096 || size === 0x1_0000),
  emulate: orNone(isObject),
};

const CALL: Shape = {
  call: isText,
  args: isListOf(isValue),
  begins: orNone(isNumber),
  ends: orNone(isNumber),
  result: orNone(isText),
  filled: orNone(isRecordOf(isValue)),
  before: orNone(isRecordOf(isPieces)),
  after: orNone(isRecordOf(isPieces)),
  stores: (value) => value === undefined || value === null || isPieces(value),
};
