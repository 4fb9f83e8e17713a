import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ARCHES, type Arch } from '../../../lib/uapi/arch.ts';
import * as uapi from '../../../lib/uapi/index.ts';

/*
 * The constants and layouts of lib/uapi against linux/kvm.h, as each architecture's compiler has it. KVM_BRIDGE_KERNEL_HEADERS names other
 * headers: the /usr/include of an unpacked linux-libc-dev.
 */

const COMPILER: Readonly<Record<string, { readonly command: string; readonly triplet: string }>> = {
  x86_64: { command: process.arch === 'x64' ? 'gcc' : 'x86_64-linux-gnu-gcc', triplet: 'x86_64-linux-gnu' },
  s390x: { command: 's390x-linux-gnu-gcc', triplet: 's390x-linux-gnu' },
  ppc64: { command: 'powerpc64le-linux-gnu-gcc', triplet: 'powerpc64le-linux-gnu' },
  aarch64: { command: 'aarch64-linux-gnu-gcc', triplet: 'aarch64-linux-gnu' },
  riscv64: { command: 'riscv64-linux-gnu-gcc', triplet: 'riscv64-linux-gnu' },
};

type Numbers = Readonly<Record<string, number | bigint>>;

const prefixed = (prefix: string, names: Numbers): [string, number | bigint][] =>
  Object.entries(names).map(([name, value]) => [`${prefix}${name}`, value]);

const { FAST_MMIO, ...ioeventfd } = uapi.IOEVENTFD;

/** The header's expression of each constant. */
const CONSTANTS: readonly (readonly [string, number | bigint])[] = [
  ...prefixed('KVM_CAP_', uapi.CAP),
  ...prefixed('KVM_EXIT_', uapi.EXIT),
  ...prefixed('KVM_MEM_', uapi.MEM),
  ...prefixed('KVM_MEMORY_EXIT_FLAG_', uapi.MEMORY_EXIT_FLAG),
  ...prefixed('GUEST_MEMFD_FLAG_', uapi.GUEST_MEMFD_FLAG),
  ...prefixed('KVM_DIRTY_LOG_', uapi.DIRTY_LOG),
  ...prefixed('KVM_DIRTY_GFN_F_', uapi.DIRTY_GFN),
  ...prefixed('KVM_IOEVENTFD_FLAG_', ioeventfd),
  // The header has a name only for the bit's number.
  ['1 << kvm_ioeventfd_flag_nr_fast_mmio', FAST_MMIO],
  ...prefixed('KVM_IRQFD_FLAG_', uapi.IRQFD),
  ...prefixed('KVM_MP_STATE_', uapi.MP_STATE),
  ...prefixed('KVM_SYNC_', uapi.KVM_SYNC),
  ...prefixed('KVM_PPC_MMUV3_', uapi.MMUV3),
  ...prefixed('KVM_PPC_', uapi.SMMU_INFO),
  ...Object.entries(uapi.S390_VM_ATTRIBUTE).flatMap(([name, [group, attribute]]): [string, number][] => [
    [`KVM_S390_VM_${/^(MEM|MIGRATION)_/.exec(name)![1] === 'MEM' ? 'MEM_CTRL' : 'MIGRATION'}`, group],
    [`KVM_S390_VM_${name}`, attribute],
  ]),
  ['KVM_X86_SW_PROTECTED_VM', uapi.VM_TYPE.X86_SW_PROTECTED],
  ['KVM_VM_S390_UCONTROL', uapi.VM_TYPE.S390_UCONTROL],
  ['KVM_VM_PPC_HV', uapi.VM_TYPE.PPC_HV],
  ['KVM_REG_PPC_DAR', uapi.ONE_REG.PPC_DAR],
  ['KVM_REG_PPC_DSISR', uapi.ONE_REG.PPC_DSISR],
  ['KVM_REG_PPC_AMR', uapi.ONE_REG.PPC_AMR],
  ['KVM_REG_PPC_UAMOR', uapi.ONE_REG.PPC_UAMOR],
  ['KVM_REG_S390_CLOCK_COMP', uapi.ONE_REG.S390_CLOCK_COMP],
  ['KVM_REG_S390_PFTOKEN', uapi.ONE_REG.S390_PFTOKEN],
  ['KVM_REG_S390_PFCOMPARE', uapi.ONE_REG.S390_PFCOMPARE],
  ['KVM_REG_S390_PFSELECT', uapi.ONE_REG.S390_PFSELECT],
  ['KVM_REG_S390_PP', uapi.ONE_REG.S390_PP],
  ['KVM_REG_S390_GBEA', uapi.ONE_REG.S390_GBEA],
  ['KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE', uapi.ONE_REG.ARM64_CORE],
  ['KVM_REG_RISCV | KVM_REG_SIZE_U64 | KVM_REG_RISCV_CORE', uapi.ONE_REG.RISCV_CORE],
  ['KVM_API_VERSION', uapi.API_VERSION],
  ['KVM_PIO_PAGE_OFFSET', uapi.PIO_PAGE_OFFSET],
  ['KVM_S390_CMMA_PEEK', uapi.CMMA_PEEK],
  ...prefixed('KVM_S390_MEMOP_', uapi.MEMOP),
  ...prefixed('KVM_S390_KEYOP_', uapi.KEYOP),
  ...prefixed('KVM_GET_HTAB_', uapi.HTAB),
  ...prefixed('KVM_PPC_COMPAT_CAP_', uapi.PPC_COMPAT_CAP),
  ...prefixed('UFFD_FEATURE_', uapi.UFFD_FEATURE),
  ...prefixed('UFFDIO_REGISTER_MODE_', uapi.UFFDIO_REGISTER_MODE),
  ...prefixed('UFFDIO_WRITEPROTECT_MODE_', uapi.UFFDIO_WRITEPROTECT_MODE),
  ...prefixed('UFFDIO_RWPROTECT_MODE_', uapi.UFFDIO_RWPROTECT_MODE),
  ...prefixed('UFFD_PAGEFAULT_FLAG_', uapi.UFFD_PAGEFAULT_FLAG),
  ...prefixed('UFFDIO_COPY_MODE_', uapi.UFFDIO_COPY_MODE),
  ...prefixed('PM_SCAN_', uapi.PM_SCAN),
  ...prefixed('PAGE_IS_', uapi.PAGE_IS),
  ['UFFD_EVENT_PAGEFAULT', uapi.UFFD_EVENT_PAGEFAULT],
  ['UFFD_API', uapi.UFFD_API],
  ['UFFD_USER_MODE_ONLY', uapi.UFFD_USER_MODE_ONLY],
  ['KVM_MEMORY_ATTRIBUTE_PRIVATE', uapi.MEMORY_ATTRIBUTE_PRIVATE],
  ['KVM_S390_MEMOP_F_CHECK_ONLY', uapi.MEMOP_FLAG.CHECK_ONLY],
  ['KVM_S390_MEMOP_F_INJECT_EXCEPTION', uapi.MEMOP_FLAG.INJECT],
  ['KVM_S390_MEMOP_F_SKEY_PROTECTION', uapi.MEMOP_FLAG.SKEY],
  ['KVM_S390_GET_SKEYS_NONE', uapi.S390_GET_SKEYS_NONE],
  ['KVM_S390_SKEYS_MAX', uapi.S390_SKEYS_MAX],
  ['KVM_ARM_TARGET_GENERIC_V8', uapi.ARM_TARGET_GENERIC_V8],
  ['KVM_VM_TYPE_ARM_PROTECTED', uapi.VM_TYPE_ARM_PROTECTED],
  ['KVM_EXIT_ARM_SEA_FLAG_GPA_VALID', uapi.ARM_SEA_GPA_VALID],
];

/** What only one architecture's headers have. */
const OF_ONE: readonly (readonly [RegExp, Arch])[] = [
  [/^KVM_(S390|SYNC|REG_S390)_/, 's390x'],
  [/^KVM_(PPC|GET_HTAB|REG_PPC)_/, 'ppc64'],
  [/^KVM_(ARM_|REG_ARM64)/, 'aarch64'],
  [/^KVM_REG_RISCV/, 'riscv64'],
  [/^KVM_(X86|PIO)_/, 'x86_64'],
];

const expected = (arch: Arch): (readonly [string, number | bigint])[] =>
  [...CONSTANTS, ...uapi.REQUEST_NAMES.map((name) => [name, uapi.requestNumber(name, arch)] as const)].filter(
    ([name]) => OF_ONE.every(([pattern, owner]) => owner === arch || !pattern.test(name)),
  );

interface Layout {
  /** What the header defines where it has the structure; absent where every header has it. */
  readonly since?: string;
  readonly type: string;
  /** Path of a member, and its offset. */
  readonly members: Readonly<Record<string, number>>;
  readonly size?: number;
}

function membersOf(fields: object, path = ''): Record<string, number> {
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) =>
      typeof value === 'number' ? [[`${path}${name}`, value]] : Object.entries(membersOf(value, `${path}${name}.`)),
    ),
  );
}

function only(fields: object, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    Object.entries(membersOf(fields)).filter(([name]) => names.includes(name.split('.', 1)[0]!)),
  );
}

function without(fields: object, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    Object.entries(membersOf(fields)).filter(([name]) => !names.includes(name.split('.', 1)[0]!)),
  );
}

const { structSize: keyopSize, ...keyop } = uapi.KVM_S390_KEYOP;
const { structSize: compatSize, ...compat } = uapi.KVM_PPC_COMPAT_CAPS;
const { structSize: setModeSize, ...setMode } = uapi.UFFDIO_SET_MODE;

const { structSize: smmuInfoSize, maxSizes: _, segment, page, ...smmuInfo } = uapi.KVM_PPC_SMMU_INFO;
const { structSize: smmuSegmentSize, ...smmuSegment } = segment;
const { structSize: smmuPageSize, ...smmuPage } = page;

const { structSize: uffdioApiSize, ...uffdioApi } = uapi.UFFDIO_API;

/** A structure that begins with a `struct uffdio_range`. */
const ranged = (type: string, layout: { start: number; len: number; structSize: number }, since?: string): Layout => {
  const { start, len, structSize, ...members } = layout;
  return {
    ...(since === undefined ? {} : { since }),
    type,
    members: { 'range.start': start, 'range.len': len, ...members },
    size: structSize,
  };
};

const { structSize: segmentSize, ...segmentFields } = uapi.KVM_SEGMENT;
const { structSize: tableSize, ...tableFields } = uapi.KVM_DTABLE;
const { structSize: vcpuInitSize, ...vcpuInit } = uapi.KVM_VCPU_INIT;

/** Offsets of fields that follow one another. */
const inOrder = (names: readonly string[], bytes: number): Record<string, number> =>
  Object.fromEntries(names.map((name, index) => [name, index * bytes]));

const OF_REGISTERS: readonly (Layout & { readonly arch: Arch })[] = [
  {
    arch: 'x86_64',
    type: 'struct kvm_regs',
    members: inOrder(uapi.X86_64_REGS, 8),
    size: uapi.REGS_SIZE.x86_64.regs!,
  },
  {
    arch: 'x86_64',
    type: 'struct kvm_sregs',
    members: { ...inOrder(uapi.X86_64_SEGMENTS, segmentSize), ...uapi.KVM_SREGS_X86_64 },
    size: uapi.REGS_SIZE.x86_64.sregs!,
  },
  { arch: 'x86_64', type: 'struct kvm_segment', members: segmentFields, size: segmentSize },
  { arch: 'x86_64', type: 'struct kvm_dtable', members: tableFields, size: tableSize },
  { arch: 'aarch64', type: 'struct kvm_vcpu_init', members: vcpuInit, size: vcpuInitSize },
  { arch: 'aarch64', type: 'struct kvm_regs', members: {}, size: uapi.KVM_REGS_AARCH64.structSize },
];

const LATER = ['arm_sea', 'snp_req_certs', 'tdx', 'memory_fault'];

function layouts(arch: Arch): Layout[] {
  const run = uapi.KVM_RUN;
  const common: Layout[] = [
    { since: 'KVM_S390_KEYOP', type: 'struct kvm_s390_keyop', members: keyop, size: keyopSize },
    { type: 'struct uffdio_api', members: uffdioApi, size: uffdioApiSize },
    {
      type: 'struct uffd_msg',
      members: {
        event: uapi.UFFD_MSG.event,
        'arg.pagefault.flags': uapi.UFFD_MSG.pagefault.flags,
        'arg.pagefault.address': uapi.UFFD_MSG.pagefault.address,
        'arg.pagefault.feat.ptid': uapi.UFFD_MSG.pagefault.ptid,
      },
      size: uapi.UFFD_MSG.structSize,
    },
    ranged('struct uffdio_register', uapi.UFFDIO_REGISTER),
    ranged('struct uffdio_writeprotect', uapi.UFFDIO_WRITEPROTECT),
    ranged('struct uffdio_rwprotect', uapi.UFFDIO_RWPROTECT, 'UFFDIO_RWPROTECT'),
    { since: 'UFFDIO_SET_MODE', type: 'struct uffdio_set_mode', members: setMode, size: setModeSize },
    { type: 'struct kvm_dirty_gfn', members: only(uapi.KVM_DIRTY_GFN, ['flags', 'slot', 'offset']), size: 16 },
  ];
  if (arch === 's390x') {
    const { union: _, s: _s, prefix: _p, gprs: _g, acrs: _a, crs: _c, ...fields } = uapi.KVM_RUN_S390X;
    return [
      ...common,
      { type: 'struct kvm_run', members: membersOf(fields) },
      { type: 'struct kvm_regs', members: {}, size: uapi.REGS_SIZE.s390x.regs! },
      { type: 'struct kvm_sregs', members: uapi.KVM_SREGS_S390X, size: uapi.REGS_SIZE.s390x.sregs! },
    ];
  }
  return [
    ...common,
    ...OF_REGISTERS.filter((each) => each.arch === arch),
    ...(arch === 'ppc64'
      ? [
          { since: 'KVM_PPC_GET_COMPAT_CAPS', type: 'struct kvm_ppc_compat_caps', members: compat, size: compatSize },
          // Up to 7.2 every architecture has these.
          { type: 'struct kvm_ppc_smmu_info', members: smmuInfo, size: smmuInfoSize },
          { type: 'struct kvm_ppc_one_seg_page_size', members: smmuSegment, size: smmuSegmentSize },
          { type: 'struct kvm_ppc_one_page_size', members: smmuPage, size: smmuPageSize },
          { type: 'struct kvm_regs', members: uapi.KVM_REGS_PPC64, size: uapi.REGS_SIZE.ppc64.regs! },
          {
            type: 'struct kvm_sregs',
            members: { pvr: uapi.KVM_SREGS_PPC64.pvr, 'u.s.ppc64.slb': uapi.KVM_SREGS_PPC64.slb },
            size: uapi.REGS_SIZE.ppc64.sregs!,
          },
        ]
      : []),
    { type: 'struct kvm_run', members: without(run, ['union', 'fail_entry', 's', ...LATER]) },
    {
      type: 'struct kvm_run',
      members: {
        'fail_entry.hardware_entry_failure_reason': run.fail_entry.reason,
        'fail_entry.cpu': run.fail_entry.cpu,
      },
    },
    { since: 'KVM_EXIT_MEMORY_FAULT', type: 'struct kvm_run', members: only(run, ['memory_fault']) },
    { since: 'KVM_EXIT_ARM_SEA', type: 'struct kvm_run', members: only(run, ['arm_sea']) },
    { since: 'KVM_EXIT_SNP_REQ_CERTS', type: 'struct kvm_run', members: only(run, ['snp_req_certs']) },
    {
      since: 'KVM_EXIT_TDX',
      type: 'struct kvm_run',
      members: {
        'tdx.flags': run.tdx.flags,
        'tdx.nr': run.tdx.nr,
        'tdx.unknown.ret': run.tdx.ret,
        'tdx.unknown.data': run.tdx.data,
      },
    },
  ];
}

function layoutAssertions({ since, type, members, size }: Layout): string {
  const lines = Object.entries(members).map(
    ([member, offset]) =>
      `_Static_assert(__builtin_offsetof(${type}, ${member}) == ${offset}, "offset of ${member} in ${type}");`,
  );
  if (size !== undefined) lines.push(`_Static_assert(sizeof(${type}) == ${size}, "size of ${type}");`);
  return guarded(since, lines.join('\n'));
}

function guarded(since: string | undefined, text: string): string {
  return since === undefined ? text : `#ifdef ${since}\n${text}\n#endif`;
}

const INCLUDES = '#include <linux/kvm.h>\n#include <linux/userfaultfd.h>\n#include <linux/fs.h>\n';

function compile(arch: Arch, source: string, options: readonly string[]) {
  const { command, triplet } = COMPILER[arch]!;
  const headers = process.env.KVM_BRIDGE_KERNEL_HEADERS;
  const from = headers === undefined ? [] : ['-isystem', headers, '-isystem', join(headers, triplet)];
  return spawnSync(command, ['-x', 'c', ...from, ...options, '-'], { input: source, encoding: 'utf8' });
}

describe.each(ARCHES)('uapi of %s', (arch) => {
  it('is what the headers say', (test) => {
    const defined = compile(arch, INCLUDES, ['-E', '-dM']);
    if (defined.error !== undefined) test.skip(`there is no ${COMPILER[arch]!.command}: install the cross compiler`);
    const values = expected(arch);
    const source = [
      INCLUDES,
      ...values.map(([name, value]) =>
        guarded(
          /^\w+$/.test(name) ? name : undefined,
          `_Static_assert((${name}) == ${value}${typeof value === 'bigint' ? 'ull' : 'll'}, "${name}");`,
        ),
      ),
      ...layouts(arch).map(layoutAssertions),
    ].join('\n');
    expect(compile(arch, source, ['-fsyntax-only']).stderr).toBe('');
    // Headers of 6.1, the oldest kernel that is supported, have most of them.
    const known = new Set([...defined.stdout.matchAll(/^#define (\w+)/gm)].map(([, name]) => name));
    const unknown = values.map(([name]) => name).filter((name) => /^\w+$/.test(name) && !known.has(name));
    expect(unknown.length).toBeLessThan(values.length / 3);
    if (process.env.KVM_BRIDGE_KERNEL_HEADERS !== undefined) expect(unknown).toEqual([]);
  });

  it('is not agreed to by a wrong number', (test) => {
    const wrong = compile(arch, `${INCLUDES}_Static_assert(KVM_CAP_NR_MEMSLOTS == 11, "");`, ['-fsyntax-only']);
    if (wrong.error !== undefined) test.skip(`there is no ${COMPILER[arch]!.command}: install the cross compiler`);
    expect(wrong.status).not.toBe(0);
  });
});
