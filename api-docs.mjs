// `npm run docs:api`: the API reference, from the sources' docstrings and the lines of docs/by-example*.md.
//
//   node api-docs.mjs [FOLDER]    into another folder than api
import { readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Application, Comment, CommentTag, Converter, ReflectionKind } from 'typedoc';
import { exampleOfFunction, exampleOfMethod } from './api-examples.mjs';

const root = dirname(fileURLToPath(import.meta.url));
const docs = readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.md'));

const entryPoints = [
  'index.ts',
  'raw.ts',
  'arch/s390x/model/index.ts',
  'arch/ppc64/model/index.ts',
  'vhost-user/index.ts',
];
const names = ['kvm-bridge', 'kvm-bridge/raw', 'kvm-bridge/s390x', 'kvm-bridge/ppc64', 'kvm-bridge/vhost-user'];
const app = await Application.bootstrap({
  entryPoints: entryPoints.map((file) => join(root, 'lib', file)),
  tsconfig: join(root, 'tsconfig.json'),
  out: resolve(process.argv[2] ?? join(root, 'api')),
  name: 'kvm-bridge',
  readme: join(root, 'README.md'),
  projectDocuments: docs.map((file) => join(root, 'docs', file)),
  excludeInternal: true,
  excludePrivate: true,
  excludeProtected: true,
  disableSources: true,
  validation: { notExported: false, invalidLink: true },
  highlightLanguages: ['bash', 'c', 'javascript', 'json', 'rust', 'typescript', 'yaml'],
});
/** A class, and what it inherits from. */
function lineage(of) {
  const bases = (of.extendedTypes ?? []).flatMap(({ reflection }) =>
    reflection === undefined ? [] : lineage(reflection),
  );
  return [of.name, ...bases];
}

/** Called by the language, by Node or by inspect, and not by a name: `using`, `for await`, `${}`, console.log. */
const CALLED_BY_OTHERS = /^\[|^(toString|captureStackTrace|prepareStackTrace)$/;

/** What others give us, and we call. */
const WRITTEN_BY_OTHERS = new Set([
  'AbsoluteMemory',
  'BoundMemory',
  'GuestInstruction',
  'HostMemory',
  'HpteWords',
  'HtabLoops',
  'MemoryLookup',
  'MmioHandlers',
  'TraceObserver',
  'VirtioDevice',
  // An object's own type, as of vm.io, whose class has the example.
  '__type',
]);
const isCalled = ({ name, parent }) => !CALLED_BY_OTHERS.test(name) && !WRITTEN_BY_OTHERS.has(parent.name);

const without = [];
app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
  for (const [index, module] of project.children.filter(({ kind }) => kind === ReflectionKind.Module).entries()) {
    module.name = names[index] ?? module.name;
  }
  for (const signature of project.getReflectionsByKind(ReflectionKind.CallSignature)) {
    const { parent: member } = signature;
    if (!member.kindOf([ReflectionKind.Method, ReflectionKind.Function])) continue;
    signature.comment ??= new Comment();
    if (signature.comment.getTag('@example') !== undefined) continue;
    const line = member.kindOf(ReflectionKind.Method)
      ? exampleOfMethod(lineage(member.parent), member.name)
      : exampleOfFunction(member.parent.name, member.name);
    if (line === undefined) {
      if (isCalled(member)) without.push(`${member.parent.name}.${member.name}`);
    } else
      signature.comment.blockTags.push(
        new CommentTag('@example', [{ kind: 'code', text: `\`\`\`ts\n${line}\n\`\`\`` }]),
      );
  }
});
const project = await app.convert();
if (project === undefined) process.exit(1);
app.validate(project);
await app.generateOutputs(project);
if (without.length > 0) console.error(`These have no example: ${without.join(', ')}`);
process.exit(app.logger.hasErrors() || without.length > 0 ? 1 : 0);
