import {
  checkBigU64,
  checkHalf,
  checkInstance,
  checkInstances,
  checkInteger,
  checkObject,
  checkOneOf,
  checkOptions,
  checkText,
  isExact,
  toU64,
} from '../../../base/arguments.ts';
import { hex64, highHalf, lowHalf, type U64 } from '../../../base/u64.ts';
import { entriesOf, HPT_ORDER, type HpteWords, otherGroup, primaryGroup, segmentOffset } from './hash.ts';
import { frameOf, HPTES_PER_GROUP, Hpte, R_LO, V_LO } from './hpte.ts';
import { pageSizeName, shiftOf } from './page-sizes.ts';
import {
  type AccessKind,
  checkAccessKind,
  checkContext,
  type Denial,
  denialOf,
  type ProtectionContext,
  protectionContext,
} from './protection.ts';
import { checkTable, entryAt, NOT_FOUND, searchHpte } from './search.ts';
import { coversHalves, Segment } from './slb.ts';

/** Why an effective address has no translation. */
export type TranslationFault = 'no-segment' | 'no-hpte' | Denial;

/** An effective address that has a translation. */
export class Translated {
  readonly ok: true;
  readonly segment: Segment;
  readonly slot: number;
  readonly entry: Hpte;
  /** The effective address, as it was given. */
  readonly ea: U64;

  /** @internal By {@link translate}. */
  constructor(segment: Segment, slot: number, entry: Hpte, ea: U64) {
    // Not by initializers, which take a third of the time of a translation.
    this.ok = true;
    this.segment = segment;
    this.slot = slot;
    this.entry = entry;
    this.ea = ea;
  }

  /** Real (for a guest: guest physical) address. */
  get ra(): bigint {
    return addressIn(this.entry, BigInt(this.ea));
  }
}

export interface NotTranslated {
  readonly ok: false;
  readonly fault: TranslationFault;
  /** Absent when there was no segment. */
  readonly segment?: Segment;
  /** With `entry`: present when an entry was found but denied the access. */
  readonly slot?: number;
  readonly entry?: Hpte;
}

export type HashTranslation = Translated | NotTranslated;

/** One step of a translation, as {@link explainTranslation} lists them. */
export type TranslationStep =
  | { readonly step: 'segment'; readonly segment: Segment | undefined }
  | { readonly step: 'hash'; readonly pageIndex: number; readonly primary: number; readonly secondary: number }
  | { readonly step: 'probe'; readonly slot: number; readonly entry: Hpte; readonly verdict: ProbeVerdict }
  | { readonly step: 'access'; readonly access: AccessKind; readonly denied: Denial | undefined; readonly entry: Hpte }
  | { readonly step: 'result'; readonly result: HashTranslation };

/** What looking at one slot gave: the entry sought, or why it isn't. */
export type ProbeVerdict =
  | 'match'
  | 'invalid'
  | 'other hash'
  | 'other segment size'
  | 'other virtual page'
  | 'other page size';

/** Options of {@link translate}. */
export interface TranslateOptions {
  /** `load` unless given. */
  readonly access?: AccessKind;
  /** Supervisor state with all keys open unless given. */
  readonly context?: ProtectionContext;
}

const openContext = protectionContext();
const DEFAULTS: Required<TranslateOptions> = { access: 'load', context: openContext };
const NAMES = { access: true, context: true } as const;

/** Checks what every translation is given beside the address. */
export function checkTranslation(slb: readonly Segment[], options: TranslateOptions): void {
  checkInstances(slb, 'slb', Segment);
  optionsOf(options);
}

/** The options as they are meant. */
function optionsOf(options: TranslateOptions): Required<TranslateOptions> {
  const { access = 'load', context = openContext } = checkOptions(options, NAMES);
  if (access !== 'load') checkAccessKind(access, 'options.access');
  if (context !== openContext) checkContext(context, 'options.context');
  return { access, context };
}

/** The first valid segment that covers the effective address. */
export function findSegment(slb: readonly Segment[], eaHi: number, eaLo: number): Segment | undefined {
  checkHalf(eaHi, 'eaHi');
  checkHalf(eaLo, 'eaLo');
  return segmentOf(slb, eaHi, eaLo);
}

/** The same, of halves that are known to be right. */
function segmentOf(slb: readonly Segment[], eaHi: number, eaLo: number): Segment | undefined {
  if (!Array.isArray(slb)) checkInstances(slb, 'slb', Segment);
  for (let i = 0; i < slb.length; i++) {
    const segment = slb[i]!;
    if (!(segment instanceof Segment)) checkInstances(slb, 'slb', Segment);
    if (coversHalves(segment, eaHi, eaLo)) return segment;
  }
  return undefined;
}

/**
 * Translates an effective address as the processor does: segment, hash, the two groups, protection, storage key.
 * R and C are left alone.
 * @throws RangeError when `ea` isn't a u64.
 */
export function translate(
  table: HpteWords,
  slb: readonly Segment[],
  ea: number | bigint,
  options: TranslateOptions = DEFAULTS,
): HashTranslation {
  // The halves are signed: larger ones would be objects wherever they are handed over.
  if (typeof ea === 'number' && ea >= 0 && isExact(ea)) {
    return walk(table, slb, ea, (ea / 2 ** 32) | 0, ea | 0, options, undefined);
  }
  const wide = toU64(ea, 'ea');
  return walk(table, slb, ea, highHalf(wide), lowHalf(wide), options, undefined);
}

/**
 * Translates like {@link translate} and tells every step: the segment, the two groups, each slot that was looked at
 * and why it did not match, the permission. {@link describeStep} makes a sentence of each.
 * @throws RangeError when `ea` isn't a u64.
 */
export function explainTranslation(
  table: HpteWords,
  slb: readonly Segment[],
  ea: number | bigint,
  options: TranslateOptions = {},
): { readonly result: HashTranslation; readonly steps: readonly TranslationStep[] } {
  const wide = toU64(ea, 'ea');
  const log = new StepLog(table);
  const result = walk(table, slb, ea, highHalf(wide), lowHalf(wide), options, log);
  const steps: readonly TranslationStep[] = [...log.steps, { step: 'result', result }];
  return { result, steps };
}

/** Notes the steps of a walk. It is an object, since closures in the walk would cost those that nobody asks about, too. */
class StepLog {
  readonly steps: TranslationStep[] = [];
  readonly #table: HpteWords;
  #segment: Segment | undefined;
  #offset = 0;
  #primary = 0;

  constructor(table: HpteWords) {
    this.#table = table;
  }

  segment(segment: Segment | undefined, eaHi: number, eaLo: number): void {
    this.steps.push({ step: 'segment', segment });
    if (segment === undefined) return;
    const { order } = this.#table;
    this.#segment = segment;
    this.#offset = segmentOffset(segment.segmentSize, eaHi, eaLo);
    this.#primary = primaryGroup(segment, this.#offset, order);
    this.steps.push({
      step: 'hash',
      pageIndex: Math.floor(this.#offset / 2 ** segment.baseShift),
      primary: this.#primary,
      secondary: otherGroup(this.#primary, order),
    });
  }

  readonly probe = (slot: number): void => {
    const entry = entryAt(this.#table, slot);
    const secondary = Math.floor(slot / HPTES_PER_GROUP) !== this.#primary;
    this.steps.push({ step: 'probe', slot, entry, verdict: judge(entry, this.#segment!, this.#offset, secondary) });
  };

  access(access: AccessKind, denied: Denial | undefined, entry: Hpte): void {
    this.steps.push({ step: 'access', access, denied, entry });
  }
}

function walk(
  table: HpteWords,
  slb: readonly Segment[],
  ea: U64,
  eaHi: number,
  eaLo: number,
  options: TranslateOptions,
  log: StepLog | undefined,
): HashTranslation {
  const { access, context } = options === DEFAULTS ? DEFAULTS : optionsOf(options);
  checkTable(table);
  const segment = segmentOf(slb, eaHi, eaLo);
  log?.segment(segment, eaHi, eaLo);
  if (segment === undefined) return { ok: false, fault: 'no-segment' };
  const slot = searchHpte(table, segment, eaHi, eaLo, V_LO.VALID, log?.probe);
  if (slot === NOT_FOUND) return { ok: false, fault: 'no-hpte', segment };
  const entry = entryAt(table, slot);
  // Where all keys are open and PP is read the lenient way, nothing denies a load.
  const isOpen = access === 'load' && context === openContext && !segment.ks;
  const denied = isOpen ? undefined : denialOf(segment, entry.rHi, entry.rLo, access, context);
  log?.access(access, denied, entry);
  if (denied !== undefined) return { ok: false, fault: denied, segment, slot, entry };
  return new Translated(segment, slot, entry, ea);
}

/** The real address of an effective address in the page of `entry`. */
export function realAddress(entry: Hpte, ea: bigint): bigint {
  return addressIn(checkInstance(entry, 'entry', Hpte), checkBigU64(ea, 'ea'));
}

function addressIn(entry: Hpte, ea: bigint): bigint {
  const shift = shiftOf(entry.vLo, entry.rLo);
  return (BigInt(frameOf(entry.rHi, entry.rLo, shift)) << 12n) | (ea & ((1n << BigInt(shift)) - 1n));
}

/** Why an entry isn't the one for an offset in a segment, said in terms of its decoded fields. */
function judge(entry: Hpte, segment: Segment, offset: number, secondary: boolean): ProbeVerdict {
  if (!entry.valid) return 'invalid';
  if (entry.secondary !== secondary) return 'other hash';
  if (entry.segmentSize !== segment.segmentSize) return 'other segment size';
  const implied = BigInt(Math.max(23, segment.baseShift));
  const va = (segment.vsid << (segment.segmentSize === '1T' ? 40n : 28n)) | BigInt(offset);
  if (entry.avpn << 23n !== (va >> implied) << implied) return 'other virtual page';
  return entry.baseShift === segment.baseShift ? 'match' : 'other page size';
}

/** One step as a sentence. */
export function describeStep(step: TranslationStep): string {
  switch (checkOneOf(checkObject(step, 'step').step, 'step.step', STEPS)) {
    case 'segment':
      return describeSegment(step as StepOf<'segment'>);
    case 'hash':
      return describeHash(step as StepOf<'hash'>);
    case 'probe':
      return describeProbe(step as StepOf<'probe'>);
    case 'access':
      return describeAccess(step as StepOf<'access'>);
    case 'result':
      return describeResult(step as StepOf<'result'>);
  }
}

const STEPS = ['segment', 'hash', 'probe', 'access', 'result'] as const;
type StepOf<Name> = Extract<TranslationStep, { readonly step: Name }>;

const checkSlot = (slot: number, name: string): number => checkInteger(slot, name, 0, entriesOf(HPT_ORDER.MAX) - 1);

function describeSegment({ segment }: StepOf<'segment'>): string {
  if (segment === undefined) return 'no valid SLB entry covers the address';
  return checkInstance(segment, 'step.segment', Segment).toString();
}

function describeHash({ pageIndex, primary, secondary }: StepOf<'hash'>): string {
  for (const [name, value] of Object.entries({ pageIndex, primary, secondary })) checkSlot(value, `step.${name}`);
  return `page 0x${pageIndex.toString(16)} of the segment: primary group ${primary}, secondary group ${secondary}`;
}

function describeProbe({ slot, entry, verdict }: StepOf<'probe'>): string {
  checkSlot(slot, 'step.slot');
  checkInstance(entry, 'step.entry', Hpte);
  return `slot ${slot}: ${checkText(verdict, 'step.verdict')}${verdict === 'invalid' ? '' : ` (${entry})`}`;
}

function describeAccess({ access, denied, entry }: StepOf<'access'>): string {
  checkAccessKind(access, 'step.access');
  if (denied === undefined) return `${access}: allowed`;
  checkText(denied, 'step.denied');
  return `${access}: denied by ${describeDenial(denied, checkInstance(entry, 'step.entry', Hpte))}`;
}

function describeResult({ result }: StepOf<'result'>): string {
  if (result instanceof Translated) {
    return `real address ${hex64(result.ra)}, in a page of ${pageSizeName(result.entry.shift)}`;
  }
  const { fault } = checkObject(result, 'step.result') as NotTranslated;
  return `no translation: ${checkText(fault, 'step.result.fault')}`;
}

function describeDenial(denied: Denial, entry: Hpte): string {
  if (denied === 'protection') return `PP ${entry.pp}`;
  if (denied === 'key') return `storage key ${entry.key}`;
  return entry.noExecute ? 'N' : (entry.rLo & R_LO.G) !== 0 ? 'G (guarded storage)' : 'N of the segment';
}
