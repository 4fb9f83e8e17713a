import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { CALL_GROUPS, type Signature, signaturesOf } from '../../../lib/calls/signatures.ts';
import { ARCHES, type Arch } from '../../../lib/uapi/arch.ts';
import { ERRNO } from '../../../lib/uapi/errno.ts';
import { scenariosFor } from '../../scenarios/index.ts';
import { RECORDINGS, readRecordings } from '../../scenarios/recording.ts';
import type { Scenario } from '../../scenarios/scenario.ts';

/*
 * The errors that a call has are those that its docstring (of KvmCalls and its groups) names. Of each there is a recording from every kernel,
 * and of its success one, unless a row of the table in docs/labs.md says why not.
 */

const ROOT = join(import.meta.dirname, '../../..');
const SUCCESS = 'success';
/** In the table: the kernel doesn't have the call at all. */
const ABSENT = 'absent';

interface Answer {
  readonly call: string;
  /** The name of an error, or success. */
  readonly answer: string;
  /** Where it is to be expected; everywhere if undefined. */
  readonly arches: readonly Arch[] | undefined;
}

interface Excuse {
  readonly call: string;
  readonly answer: string;
  readonly kernels: readonly string[];
}

/** Names of errors in a docstring, each with the architectures in brackets behind it. */
function errorsIn(text: string): { readonly answer: string; readonly arches: readonly Arch[] | undefined }[] {
  return [...text.matchAll(/−(E[A-Z0-9]+)(?:\s+\(([^)]*)\))?/g)].map(([, answer = '', bracket]) => {
    expect(Object.keys(ERRNO)).toContain(answer);
    const names = bracket?.split(/,\s*/) ?? [];
    const arches = ARCHES.filter((arch) => names.includes(arch));
    expect(bracket === undefined || arches.length === names.length, `−${answer} (${bracket})`).toBe(true);
    return { answer, arches: bracket === undefined ? undefined : arches };
  });
}

/** What the docstrings of an interface's methods promise. */
function promises(declaration: ts.InterfaceDeclaration, source: string, group: Arch | undefined): Answer[] {
  return declaration.members.filter(ts.isMethodSignature).flatMap((member) => {
    const call = (member.name as ts.Identifier).text;
    const doc = source.slice(member.getFullStart(), member.getStart()).replace(/\s*\n\s*\* ?/g, ' ');
    const arches = group === undefined ? undefined : [group];
    const errors = errorsIn(doc).map(({ answer, arches: own }) => ({ call, answer, arches: own ?? arches }));
    const names = new Set(errors.map(({ answer }) => answer));
    // One that is named twice counts where any of the two says.
    const merged = [...names].map((answer) => {
      const of = errors.filter((error) => error.answer === answer);
      const everywhere = of.some((error) => error.arches === undefined);
      return { call, answer, arches: everywhere ? undefined : of.flatMap((error) => error.arches ?? []) };
    });
    return [{ call, answer: SUCCESS, arches }, ...merged];
  });
}

/** By file and interface, and where it is of one architecture. */
const INTERFACES: Readonly<Record<string, Readonly<Record<string, Arch | undefined>>>> = {
  'lib/calls/kvm-calls.ts': { KvmCalls: undefined, X86_64Calls: 'x86_64', S390xCalls: 's390x', Ppc64Calls: 'ppc64' },
  'lib/calls/userfaultfd-calls.ts': { UserfaultfdCalls: undefined },
};

function everyPromise(): Answer[] {
  return Object.entries(INTERFACES).flatMap(([file, groups]) => {
    const path = join(ROOT, file);
    const text = readFileSync(path, 'utf8');
    const interfaces = ts
      .createSourceFile(path, text, ts.ScriptTarget.Latest, true)
      .statements.filter(ts.isInterfaceDeclaration);
    return Object.entries(groups).flatMap(([name, group]) =>
      promises(interfaces.find((declaration) => declaration.name.text === name)!, text, group),
    );
  });
}

/** Rows of the table below `## What is recorded` in docs/labs.md: call, answer, kernels, reason. */
function everyExcuse(): Excuse[] {
  const section = readFileSync(join(ROOT, 'docs/labs.md'), 'utf8')
    .split(/^## /m)
    .find((text) => text.startsWith('What is recorded'));
  const rows = section?.split('\n').filter((line) => line.startsWith('| `')) ?? [];
  return rows.flatMap((row) => {
    const [calls = '', answers = '', kernels = '', why = ''] = row
      .split('|')
      .slice(1)
      .map((cell) => cell.trim());
    expect(why, `the row of ${calls} gives a reason`).not.toBe('');
    const list = (cell: string): string[] => cell.split(/,\s*/).map((word) => word.replaceAll('`', ''));
    return list(calls).flatMap((call) =>
      list(answers).map((answer) => ({ call, answer: answer.replace('−', ''), kernels: list(kernels) })),
    );
  });
}

/** What each call's first parameter is, where it is a descriptor of one kind. */
const descriptors = new Map(
  [undefined, ...CALL_GROUPS].flatMap((group) =>
    Object.entries<Signature>(signaturesOf(group)).flatMap(([call, { parameters }]) => {
      const [name] = parameters[0] ?? [''];
      return ['kvm', 'vm', 'vcpu'].includes(name) ? [[call, name] as const] : [];
    }),
  ),
);

/** `name(arguments) = result -> what came out`: the name and the result as an answer. */
function answerOf(line: string): { readonly call: string; readonly answer: string } {
  const [, call = '', kind = '', result = ''] = /^(\w+)\(([^#,)]*).*\) = (\S+)/.exec(line) ?? [];
  // What another kind of descriptor answers is not the call's.
  const wanted = descriptors.get(call);
  if (wanted !== undefined && wanted !== kind) return { call, answer: 'misdirected' };
  // s390x has KVM_RUN return the code of an interruption that nobody gets.
  if (call.startsWith('run') && result !== '0' && !result.startsWith('-')) return { call, answer: `code ${result}` };
  return { call, answer: result.startsWith('-') ? result.slice(1) : SUCCESS };
}

const excuses = everyExcuse();
const everything = everyPromise();
/** Kernels that were built for one topic, and asked about nothing else: its scenarios. */
const BUILT_FOR: Readonly<Record<string, string>> = { 'x86_64-6.12-swp': 'private-memory/' };

const sets = readRecordings(RECORDINGS)
  .filter(({ id }) => BUILT_FOR[id] === undefined)
  .map(({ id, set }) => ({
    id,
    arch: set.emulate.arch!,
    answers: new Set(
      set.taken.flatMap(({ lines }) => lines.map(answerOf)).map(({ call, answer }) => `${call} ${answer}`),
    ),
  }));

const isOf = (kernels: readonly string[], { id, arch }: (typeof sets)[number]): boolean =>
  kernels.some((kernel) => kernel === 'all' || kernel === arch || kernel === id);

describe('what is recorded is complete', () => {
  it('knows every call', () => {
    const common: Readonly<Record<string, Signature>> = signaturesOf(undefined);
    const own = CALL_GROUPS.filter((group) => group !== 'sharing').flatMap((group) => Object.keys(signaturesOf(group)));
    expect(new Set(everything.map(({ call }) => call))).toEqual(new Set([...Object.keys(common), ...own]));
  });

  it.each(sets)('on $id', (set) => {
    const missing = everything
      .filter(({ arches }) => arches?.includes(set.arch) ?? true)
      .filter(({ call, answer }) => !set.answers.has(`${call} ${answer}`))
      .filter(
        ({ call, answer }) =>
          !excuses.some(
            (excuse) =>
              excuse.call === call &&
              (excuse.answer === answer || excuse.answer === ABSENT) &&
              isOf(excuse.kernels, set),
          ),
      )
      .map(({ call, answer }) => `${call}: ${answer}`);
    expect(missing).toEqual([]);
  });

  it('excuses nothing that is recorded, promised by nobody, or of a kernel that there is no recording of', () => {
    const superfluous = excuses.filter(({ call, answer, kernels }) =>
      kernels.some((kernel) => {
        const of = sets.filter((set) => isOf([kernel], set));
        const isPromised = everything.some(
          (promise) => promise.call === call && (promise.answer === answer || answer === ABSENT),
        );
        const looked = answer === ABSENT ? SUCCESS : answer;
        return of.length === 0 || !isPromised || of.some((set) => set.answers.has(`${call} ${looked}`));
      }),
    );
    expect(superfluous).toEqual([]);
  });
});

/** What a recorded machine cannot carry out. */
const BEYOND: Readonly<Record<string, (scenario: Scenario) => boolean>> = {
  's390x-7.2': ({ entersSie }) => entersSie === true,
  'x86_64-6.18-pvm': ({ needsProcessor }) => needsProcessor === true,
};

it.each(readdirSync(RECORDINGS))('every scenario is recorded on %s', (kernel) => {
  const arch = ARCHES.find((each) => kernel.startsWith(`${each}-`))!;
  const topic = BUILT_FOR[kernel] ?? '';
  const able = scenariosFor(arch).filter(
    (scenario) => BEYOND[kernel]?.(scenario) !== true && scenario.name.startsWith(topic),
  );
  const missing = able.filter(({ name }) => !existsSync(join(RECORDINGS, kernel, `${name}.txt`)));
  expect(missing.map(({ name }) => name)).toEqual([]);
});
