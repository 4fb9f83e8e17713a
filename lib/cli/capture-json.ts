/** What a capture's capture.json says of the guest. */
export interface CaptureJson {
  readonly kernel?: string;
  readonly memory?: string;
  readonly edat1?: boolean;
  readonly edat2?: boolean;
  readonly cpus?: readonly {
    readonly psw: { readonly mask: string; readonly addr: string };
    readonly prefix: string;
    readonly cr: readonly string[];
    readonly gpr?: readonly string[];
  }[];
  readonly slb?: readonly { readonly esid: string; readonly vsid: string }[];
}

/** Everything that is used of it is looked at here, so that nobody behind this meets what isn't there. @throws TypeError */
export function captureJson(parsed: unknown): CaptureJson {
  const json = object(parsed, 'it');
  if (json.kernel !== undefined && typeof json.kernel !== 'string') throw wrong('kernel', 'text', json.kernel);
  if (json.memory !== undefined) number(json.memory, 'memory');
  for (const [at, each] of list(json.cpus ?? [], 'cpus').entries()) {
    const cpu = object(each, `cpus[${at}]`);
    const psw = object(cpu.psw, `cpus[${at}].psw`);
    number(psw.mask, `cpus[${at}].psw.mask`);
    number(psw.addr, `cpus[${at}].psw.addr`);
    number(cpu.prefix, `cpus[${at}].prefix`);
    numbers(cpu.cr, `cpus[${at}].cr`);
    if (cpu.gpr !== undefined) numbers(cpu.gpr, `cpus[${at}].gpr`);
  }
  for (const [at, each] of list(json.slb ?? [], 'slb').entries()) {
    const { esid, vsid } = object(each, `slb[${at}]`);
    number(esid, `slb[${at}].esid`);
    number(vsid, `slb[${at}].vsid`);
  }
  return json as CaptureJson;
}

const wrong = (name: string, right: string, value: unknown): TypeError =>
  new TypeError(value === undefined ? `there is no ${name}` : `${name} is ${JSON.stringify(value)}, and no ${right}`);

function object(value: unknown, name: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(name, 'object', value);
  return value as Record<string, unknown>;
}

function list(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(name, 'list', value);
  return value;
}

/** As many as a CPU has registers. */
const MOST_REGISTERS = 16;

function numbers(value: unknown, name: string): void {
  const values = list(value, name);
  if (values.length > MOST_REGISTERS) throw new TypeError(`${name} has ${values.length} numbers, and a CPU 16 of them`);
  for (const [at, each] of values.entries()) number(each, `${name}[${at}]`);
}

function number(value: unknown, name: string): void {
  if (typeof value === 'string' && /^0x[0-9a-f]{1,16}$|^\d{1,19}$/i.test(value)) return;
  throw wrong(name, 'number as text', value);
}
