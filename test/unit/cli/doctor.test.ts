import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { FileFacts, Host } from '../../../lib/cli/doctor/host.ts';
import { diagnose, doctorCommand } from '../../../lib/cli/doctor/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { ARCH_FACTS, type Arch, EmulatedKernel, ERRNO, traced } from '../../../lib/raw.ts';
import { fakeIo } from './fake-io.ts';

/** Only looked for here. */
const loops = {
  htab: { apply: () => 0, encode: () => -1 },
  bitmaps: { list: () => 0, listRuns: () => 0 },
  addresses: { place: () => 0 },
  storageKeys: { note: () => 0 },
};
const DEVICE: FileFacts = { isCharacterDevice: true, mode: 0o660, gid: 106 };

interface Machine {
  readonly arch?: Arch;
  readonly host?: Partial<Host>;
  readonly files?: Readonly<Record<string, string>>;
  readonly device?: FileFacts | undefined;
  readonly mayUse?: boolean;
  /** Calls that answer otherwise than the emulated kernel does. */
  readonly calls?: Partial<KvmCalls>;
}

/** A machine whose KVM is an emulated kernel. */
function machine({ arch = 'x86_64', host = {}, files = {}, mayUse = true, calls = {}, ...rest }: Machine = {}): Host {
  const device = 'device' in rest ? rest.device : DEVICE;
  const kernel = new EmulatedKernel({ arch });
  return {
    platform: 'linux',
    nodeArch: ARCH_FACTS[arch].nodeArch,
    nodeVersion: 'v20.20.2',
    release: '6.12.0',
    env: {},
    user: 'ada',
    read: (path) => files[path],
    list: (path) => (path === '/sys/module' ? ['ext4', 'kvm_intel', 'kvm'] : []),
    stat: (path) => (path === '/dev/kvm' ? device : undefined),
    canReadAndWrite: () => mayUse,
    has: () => true,
    loadAddon: () => ({
      calls: Object.assign(kernel, calls),
      ...loops,
      path: '/p/build/Release/kvm_bridge.node',
    }),
    ...host,
  };
}

function finding(host: Host, subject: string) {
  const found = diagnose(host).findings.find((candidate) => candidate.subject === subject);
  expect(found, subject).toBeDefined();
  return found!;
}

describe('a machine where all is well', () => {
  it.each(['x86_64', 'ppc64', 'aarch64'] as const)('is found usable: %s', (arch) => {
    const { usable, findings } = diagnose(machine({ arch }));
    expect(findings.filter(({ status }) => status === 'fail')).toEqual([]);
    expect(usable).toBe(true);
  });

  it('is left as it was', () => {
    const open = new Set<number>();
    const mapped = new Set<number>();
    const observer = {
      opened: (fd: number) => open.add(fd),
      closed: (fd: number) => open.delete(fd),
      mapped: (hva: number) => mapped.add(hva),
      unmapped: (hva: number) => mapped.delete(hva),
    };
    const lines: string[] = [];
    const calls = traced(new EmulatedKernel({ arch: 'x86_64' }), (line) => lines.push(line), { observer });
    const loadAddon = () => ({ calls, ...loops, path: '/p/kvm_bridge.node' });
    expect(diagnose(machine({ host: { loadAddon } })).usable).toBe(true);
    expect(lines.filter((line) => /^(openKvm|createVm|createVcpu)\(/.test(line))).toHaveLength(3);
    expect([...open, ...mapped]).toEqual([]);
  });

  it('has an addon of known origin', () => {
    expect(finding(machine(), 'addon').detail).toBe('for x86_64, built here: /p/build/Release/kvm_bridge.node');
    const path = '/p/prebuilds/linux-x64/kvm_bridge.node';
    const calls = new EmulatedKernel({ arch: 'x86_64' });
    const prebuilt = machine({ host: { loadAddon: () => ({ calls, ...loops, path }) } });
    expect(finding(prebuilt, 'addon').detail).toBe(`for x86_64, the prebuilt one: ${path}`);
    const named = machine({ host: { env: { KVM_BRIDGE_ADDON: path } } });
    expect(finding(named, 'addon').detail).toContain('named by KVM_BRIDGE_ADDON');
  });

  it('has its capabilities with their values', () => {
    const { capabilities } = diagnose(machine());
    const value = (name: string) => capabilities.find((capability) => capability.name === name)?.value;
    expect(value('NR_MEMSLOTS')).toBe(32764);
    expect(value('MULTI_ADDRESS_SPACE')).toBe(2);
    expect(value('S390_MEM_OP')).toBeUndefined();
    const s390x = diagnose(machine({ arch: 's390x', files: { '/proc/sys/vm/allocate_pgste': '1' } })).capabilities;
    expect(s390x.find(({ name }) => name === 'S390_MEM_OP')?.value).toBe(65536);
    expect(s390x.find(({ name }) => name === 'READONLY_MEM')?.value).toBe(0);
  });
});

describe('what makes the real KVM unusable', () => {
  const unusable = (host: Host, subject: string) => {
    const found = finding(host, subject);
    expect(found.status).toBe('fail');
    expect(diagnose(host).usable).toBe(false);
    return found;
  };

  it('another operating system', () => {
    const host = machine({ host: { platform: 'darwin' } });
    expect(unusable(host, 'system').detail).toContain('KVM is a part of Linux');
    expect(diagnose(host).findings.map(({ subject }) => subject)).toEqual(['system', 'addon']);
  });

  it('a processor that is not known', () => {
    unusable(machine({ host: { nodeArch: 'mips' } }), 'system');
  });

  it('no addon, with every path that was tried', () => {
    const error = new Error('no such module\nRequire stack: ...');
    const loadAddon = () => ({ reason: 'The addon was not built.', tried: ['/a/x.node', '/b/x.node'], error });
    const found = unusable(machine({ host: { loadAddon } }), 'addon');
    expect(found.detail.split('\n')).toEqual([
      'The addon was not built.',
      'last error: no such module',
      'tried, in this order:',
      '/a/x.node',
      '/b/x.node',
    ]);
    expect(found.mend).toBe('npm rebuild kvm-bridge');
  });

  it.each([
    ['x86_64', 'flags : fpu vmx', 'sudo modprobe kvm_intel'],
    ['x86_64', 'flags : fpu svm', 'sudo modprobe kvm_amd'],
    ['x86_64', 'flags : fpu', 'neither vmx nor svm'],
    ['s390x', 'features : esan3 sie', 'sudo modprobe kvm'],
    ['s390x', 'features : esan3', 'shows no sie'],
    ['ppc64', '', 'modprobe kvm_hv'],
    ['aarch64', '', 'EL2'],
  ] as const)('no /dev/kvm on %s with %j', (arch, cpuinfo, mend) => {
    const files = { '/proc/cpuinfo': cpuinfo, '/proc/sys/vm/allocate_pgste': '1' };
    expect(unusable(machine({ arch, device: undefined, files }), '/dev/kvm').mend).toContain(mend);
  });

  it('no /dev/kvm in a container, or under WSL', () => {
    const stat = (path: string) => (path === '/.dockerenv' ? { isCharacterDevice: false, mode: 0, gid: 0 } : undefined);
    expect(unusable(machine({ host: { stat } }), '/dev/kvm').mend).toContain('--device /dev/kvm');
    const wsl = machine({ device: undefined, host: { release: '5.15.90.1-microsoft-standard-WSL2' } });
    expect(unusable(wsl, '/dev/kvm').mend).toContain('nestedVirtualization=true');
  });

  it.each([
    [{ mode: 0o660, gid: 106 }, 'sudo usermod -aG kvm ada, then log in again'],
    [{ mode: 0o600, gid: 106 }, 'sudo setfacl -m u:ada:rw /dev/kvm'],
    [{ mode: 0o660, gid: 0 }, 'sudo setfacl -m u:ada:rw /dev/kvm'],
    [{ mode: 0o660, gid: 999 }, 'sudo setfacl -m u:ada:rw /dev/kvm'],
  ])('a /dev/kvm that the user may not open: %j', (facts, mend) => {
    const files = { '/etc/group': 'root:x:0:\nkvm:x:106:\n' };
    const host = machine({ mayUse: false, device: { isCharacterDevice: true, ...facts }, files });
    expect(unusable(host, '/dev/kvm')).toMatchObject({ mend });
  });

  it('a /dev/kvm that is a plain file, or somebody else’s device', () => {
    unusable(machine({ device: { ...DEVICE, isCharacterDevice: false } }), '/dev/kvm');
    const host = machine({ calls: { getApiVersion: () => -ERRNO.ENOTTY } });
    expect(unusable(host, 'API version').detail).toContain('ENOTTY');
  });

  it('opening that fails all the same', () => {
    expect(unusable(machine({ calls: { openKvm: () => -ERRNO.ENODEV } }), 'open').detail).toContain('ENODEV');
  });

  it('no room for storage keys in the page tables of s390x', () => {
    const host = machine({
      arch: 's390x',
      files: { '/proc/sys/vm/allocate_pgste': '0' },
      calls: { createVm: () => -ERRNO.EINVAL },
    });
    expect(unusable(host, 'vm.allocate_pgste').mend).toContain('sudo sysctl vm.allocate_pgste=1');
    expect(unusable(host, 'create VM').mend).toContain('allocate_pgste');
    // A kernel without the setting, from 7.0 on, is not asked for it.
    const newer = machine({ arch: 's390x', calls: { createVm: () => -ERRNO.EINVAL } });
    expect(diagnose(newer).findings.map(({ subject }) => subject)).not.toContain('vm.allocate_pgste');
    expect(unusable(newer, 'create VM').mend).toContain('dmesg');
    // What /dev/kvm itself says is told all the same.
    expect(diagnose(host).capabilities.find(({ name }) => name === 'S390_SKEYS')?.value).toBe(1);
  });

  it('no VM, no vCPU', () => {
    expect(unusable(machine({ calls: { createVm: () => -ERRNO.ENOMEM } }), 'create VM').detail).toContain('ENOMEM');
    expect(unusable(machine({ calls: { createVcpu: () => -ERRNO.EMFILE } }), 'create vCPU').detail).toContain('EMFILE');
  });
});

describe('what is worth a note', () => {
  const noted = (machineOptions: Machine, subject: string) => {
    const found = finding(machine(machineOptions), subject);
    expect(found.status).toBe('note');
    expect(diagnose(machine(machineOptions)).usable).toBe(true);
    return found;
  };

  it('few open files, no huge pages, no overcommit', () => {
    const limits = 'Limit  Soft Limit  Hard Limit  Units\nMax open files            1024   4096   files\n';
    expect(noted({ files: { '/proc/self/limits': limits } }, 'open files').mend).toBe('ulimit -n 4096');
    const meminfo = 'HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB';
    expect(noted({ files: { '/proc/meminfo': meminfo } }, 'huge pages').mend).toBe('sudo sysctl vm.nr_hugepages=64');
    const strict = { '/proc/sys/vm/overcommit_memory': '2' };
    expect(noted({ files: strict }, 'overcommit').mend).toBe('sudo sysctl vm.overcommit_memory=0');
  });

  it('kvm_pvm, and modules that are built in', () => {
    expect(noted({ host: { list: () => ['kvm', 'kvm_pvm'] } }, 'kernel modules').detail).toContain('emulated');
    expect(noted({ host: { list: () => [] } }, 'kernel modules').detail).toContain('built into the kernel');
  });

  it('and what is as it should be is not', () => {
    const files = {
      '/proc/self/limits':
        'Max open files            20000                20000                files\nMax locked memory         8388608              8388608              bytes',
      '/proc/meminfo': 'HugePages_Total:      64\nHugePages_Free:       60\nHugepagesize:       2048 kB',
      '/proc/sys/vm/overcommit_memory': '0',
      '/sys/module/kvm_intel/parameters/nested': 'Y',
      '/sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never',
    };
    const host = machine({ files });
    expect(diagnose(host).findings.filter(({ status }) => status !== 'ok')).toEqual([]);
    expect(finding(host, 'huge pages').detail).toBe('60 of 64 are free, of 2 MiB each; transparent ones: madvise');
    expect(finding(host, 'kernel modules').detail).toBe('kvm, kvm_intel; kvm_intel: nested guests possible');
    expect(finding(host, 'locked memory').detail).toContain('8 MiB');
  });
});

describe('the report', () => {
  it('ends with 0 where the real KVM is usable, and 1 where it is not', () => {
    const good = fakeIo();
    expect(doctorCommand(good, { json: false }, machine())).toBe(0);
    expect(good.out()).toMatch(/Real KVM is usable here\.\n$/);
    const bad = fakeIo();
    expect(doctorCommand(bad, { json: false }, machine({ device: undefined }))).toBe(1);
    expect(bad.out()).toMatch(/Real KVM is not usable here\. The emulated kernel is, here and anywhere\.\n$/);
    expect(bad.out()).toMatch(/^ {2}fail {2}\/dev\/kvm +there is no such file, and/m);
  });

  it('is JSON on request', () => {
    const io = fakeIo();
    const host = machine();
    expect(doctorCommand(io, { json: true }, host)).toBe(0);
    expect(JSON.parse(io.out())).toEqual(JSON.parse(JSON.stringify(diagnose(host))));
  });

  it.each([
    ['x86_64', 80],
    ['s390x', 80],
    ['ppc64', 80],
    ['x86_64', 62],
    ['x86_64', 44],
  ] as const)('keeps to the columns that there are, but for commands: %s, %d', (arch, columns) => {
    const io = fakeIo({ columns });
    const files = { '/proc/sys/vm/allocate_pgste': '0' };
    doctorCommand(io, { json: false }, machine({ arch, files, host: { list: () => ['kvm', 'kvm_pvm'] } }));
    for (const line of io.out().split('\n')) {
      // A path is a word, and so is the name of a capability, two of which take 61.
      const isTable = columns < 61 && /^ {2}[A-Z0-9_]{4,} |^ {38}/.test(line);
      if (!/→|\//.test(line) && !isTable) expect(line.length, line).toBeLessThanOrEqual(columns);
    }
  });
});

describe('a machine without /dev/kvm', () => {
  const misc = (list: string) => ({ device: undefined, files: { '/proc/misc': list, '/proc/cpuinfo': 'flags: vmx' } });

  it('is told to make the node where the kernel has KVM, with the number that it has', () => {
    const found = finding(machine(misc(' 53 vga_arbiter\n231 kvm\n')), '/dev/kvm');
    expect(found.detail).toContain('only the device node is missing');
    expect(found.mend).toBe('sudo mknod -m 0660 /dev/kvm c 10 231');
  });

  it('is told to load the module where it has none', () => {
    const found = finding(machine(misc('232 kvmfr\n')), '/dev/kvm');
    expect(found.detail).toContain('it is not loaded');
    expect(found.mend).toBe('sudo modprobe kvm_intel');
  });

  it('is told to start a container with the device of its host', () => {
    const container = (path: string) =>
      path === '/.dockerenv' ? { isCharacterDevice: false, mode: 0o644, gid: 0 } : undefined;
    const found = finding(machine({ ...misc('232 kvm\n'), host: { stat: container } }), '/dev/kvm');
    expect(found.mend).toMatch(/^start the container with --device/);
  });
});

describe('the doctor', () => {
  it('names what each lab lacks, and one command for all of it', () => {
    const host = machine({ host: { has: (needs) => !/s390x|^zstd$/.test(needs) } });
    const found = finding(host, 'labs');
    expect(found.detail).toBe('x86_64, aarch64, riscv64: ready; s390x lacks qemu-system-s390x; ppc64 lacks zstd');
    expect(found.mend).toMatch(/ qemu-system-s390x zstd$/);
    expect(finding(machine(), 'labs').status).toBe('ok');
  });

  it('names the programs that examples run and lack, all that there are', () => {
    const host = machine({ host: { has: (needs) => needs !== 'qemu-storage-daemon' } });
    const found = finding(host, 'examples');
    expect(found).toMatchObject({ status: 'note', detail: 'vhost-user-disk.mjs lacks qemu-storage-daemon' });
    expect(found.mend).toMatch(/ qemu-system-common$/);
    const all = finding(machine(), 'examples');
    expect(all.status).toBe('ok');
    const folder = new URL('../../../examples/', import.meta.url);
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.mjs'))) {
      const source = readFileSync(new URL(file, folder), 'utf8').replaceAll('qemu-system-common', '');
      for (const [program] of source.matchAll(/\bqemu-[\w-]*\w/g)) expect(all.detail).toContain(program);
    }
  });

  it('knows whose faults userfaultfd may take', () => {
    const files = { '/proc/sys/vm/unprivileged_userfaultfd': '0' };
    expect(finding(machine({ files }), 'userfaultfd').status).toBe('ok');
    const barred = finding(machine({ files, host: { canReadAndWrite: (path) => path === '/dev/kvm' } }), 'userfaultfd');
    expect(barred).toMatchObject({ status: 'note', mend: 'sudo setfacl -m u:ada:rw /dev/userfaultfd' });
  });
});

describe('a ppc64 host', () => {
  const subjects = ['HV or PR', 'page tables'];
  const facts = (modules: string[], cpuinfo: string) => {
    const host = machine({
      arch: 'ppc64',
      files: { '/proc/cpuinfo': cpuinfo },
      host: { list: (path) => (path === '/sys/module' ? modules : []) },
    });
    return diagnose(host).findings.filter(({ subject }) => subjects.includes(subject));
  };

  it('is told which KVM it has, and which tables', () => {
    const [kvm, tables] = facts(['kvm', 'kvm_hv'], 'cpu\t\t: POWER9\nMMU\t\t: Radix\n');
    expect([kvm?.status, tables?.status]).toEqual(['ok', 'ok']);
    expect(tables?.detail).toContain("Radix, the host's own: guests may have radix tables or hashed ones");
    expect(facts(['kvm', 'kvm_hv'], 'MMU\t\t: Hash\n')[1]?.detail).toContain('guests have hashed tables');
  });

  it('is told what kvm_pr lacks, and what mends it', () => {
    expect(facts(['kvm', 'kvm_pr'], '')).toEqual([
      {
        subject: 'HV or PR',
        status: 'note',
        detail: expect.stringContaining('no HTAB') as string,
        mend: 'sudo modprobe kvm_hv',
      },
    ]);
  });

  it('alone is told so', () => {
    expect(diagnose(machine()).findings.map(({ subject }) => subject)).not.toContain('HV or PR');
  });
});
