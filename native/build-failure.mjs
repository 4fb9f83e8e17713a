// Why node-gyp did not build the addon, and what mends it, from what it printed.

/** How to install what is called so by each family of distributions. */
const install = (debian, fedora = debian) =>
  `install it (Debian, Ubuntu: \`apt-get install ${debian}\`; Fedora: \`dnf install ${fedora}\`) and run \`npm rebuild kvm-bridge\``;

const AGAIN = 'and run `npm rebuild kvm-bridge`';

/**
 * The first that fits is the reason.
 * @type {readonly { pattern: RegExp, reason: string | ((match: RegExpExecArray) => string), mend: string }[]}
 */
const REASONS = [
  {
    pattern: /No space left on device|ENOSPC/,
    reason: 'the disk is full',
    mend: `make room ${AGAIN}`,
  },
  {
    pattern: /ERR! find Python/,
    reason: 'no Python 3 was found that node-gyp can use',
    mend: install('python3'),
  },
  {
    pattern: /not found: make|make: (?:command )?not found|spawn make ENOENT/i,
    reason: '`make` was not found',
    mend: install('make'),
  },
  {
    pattern: /Cannot find module '(node-addon-api)'/,
    reason: ([, name]) => `the package ${name} is not installed`,
    mend: `run \`npm install\` ${AGAIN}`,
  },
  {
    pattern: /fatal error: (linux\/\S+|asm\/\S+): No such file/,
    reason: ([, header]) => `the kernel's header ${header} was not found`,
    mend: install('linux-libc-dev', 'kernel-headers'),
  },
  {
    pattern: /error: unrecognized (?:command[- ]line )?option .?(-std=c\+\+17)|invalid value '(c\+\+17)'/,
    reason: 'the C++ compiler is too old: it does not know C++17',
    mend: `install GCC 8 or Clang 7, or a later one, ${AGAIN}`,
  },
  {
    // Its own name is in the message where make, and before it where a shell or gyp, looked for it.
    pattern:
      /make(?:\[\d+\])?: (\S*(?:\+\+|cc|clang)\S*): No such file|: (\S*(?:\+\+|cc|clang)\S*): (?:command )?not found|No such file or directory: '([^']*(?:cc|\+\+))'/,
    reason: ([, byMake, byShell, byGyp]) => `the C++ compiler ${byMake ?? byShell ?? byGyp} was not found`,
    mend: install('g++', 'gcc-c++'),
  },
  {
    pattern: /Killed signal terminated program \S+|signal 9/,
    reason: 'the compiler was killed, as it is when memory runs out',
    mend: `try again with more memory: \`npm rebuild kvm-bridge\``,
  },
  {
    pattern: /^\S[^:\n]*:\d+(?::\d+)?: (?:fatal )?error: .*$/m,
    reason: ([line]) => `compiling failed: ${line}`,
    mend: 'if the compiler is GCC 8, Clang 7 or later, please report it with the log',
  },
  {
    pattern: /^.*(?:undefined reference to|ld: (?:error|cannot find)|relocation .* against).*$/m,
    reason: ([line]) => `linking failed: ${line.trim()}`,
    mend: 'please report it with the log',
  },
  {
    pattern: /getaddrinfo|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|certificate|response downloading/,
    reason: 'the headers of this Node.js could not be downloaded',
    mend: `set npm_config_nodedir to the prefix of a Node.js of this version that has include/node ${AGAIN}`,
  },
  {
    pattern: /(?:EACCES|EROFS|EPERM)[^\n]*/,
    reason: ([line]) => `a file could not be written: ${line.trim()}`,
    mend: `let this user write the package's folder ${AGAIN}`,
  },
];

/**
 * @param {string} output what node-gyp printed
 * @returns {{ reason: string, mend: string }}
 */
export function explainFailure(output) {
  for (const { pattern, reason, mend } of REASONS) {
    const match = pattern.exec(output);
    if (match !== null) return { reason: typeof reason === 'string' ? reason : reason(match), mend };
  }
  const last = output.match(/^(?:gyp )?ERR! stack Error: (.*)$|^gyp ERR! stack (.*)$/m);
  const said = last?.[1] ?? last?.[2] ?? output.trim().split('\n').at(-1);
  return { reason: `node-gyp failed: ${said || 'it said nothing'}`, mend: 'see the log' };
}
