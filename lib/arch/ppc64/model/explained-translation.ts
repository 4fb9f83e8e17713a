import { hex64 } from '../../../base/u64.ts';
import { describeStep, type HashTranslation, type TranslationStep } from './translate.ts';

/** A translation with its steps; printed, one line each. */
export class ExplainedHashTranslation {
  readonly ea: bigint;
  readonly result: HashTranslation;
  readonly steps: readonly TranslationStep[];

  constructor(ea: bigint, { result, steps }: Pick<ExplainedHashTranslation, 'result' | 'steps'>) {
    this.ea = ea;
    this.result = result;
    this.steps = steps;
  }

  toString(): string {
    return [`effective address ${hex64(this.ea)}`, ...this.steps.map((step) => `  ${describeStep(step)}`)].join('\n');
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}
