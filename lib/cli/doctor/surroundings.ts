import { humanSize } from '../../base/text.ts';
import { toolsFor } from '../../lab/host-tools.ts';
import { VARIANTS } from '../../lab/variants.ts';
import { archOfNode } from '../../uapi/arch.ts';
import { type Finding, fail, note, ok } from './finding.ts';
import type { Host } from './host.ts';

/** The operating system and the processor. */
export function examineSystem(host: Host): Finding {
  const where = `${host.platform} ${host.release}, ${host.nodeArch}, Node ${host.nodeVersion}`;
  if (host.platform !== 'linux') {
    return fail('system', `${where}: KVM is a part of Linux`, 'run this on Linux; here the emulated kernel works');
  }
  if (archOfNode(host.nodeArch) === undefined) {
    return fail('system', `${where}: not an architecture that kvm-bridge knows`, 'use the emulated kernel: --arch');
  }
  return ok('system', where);
}

/** The modules that are loaded, and what is peculiar about them. */
export function examineModules(host: Host): Finding {
  const modules = host.list('/sys/module').filter((name) => /^kvm/.test(name));
  if (modules.length === 0) return note('kernel modules', 'none is named kvm: not loaded, or built into the kernel');
  const nested = modules.flatMap((name) => {
    const value = host.read(`/sys/module/${name}/parameters/nested`);
    return value === undefined ? [] : [`${name}: nested guests ${/^[1Y]/.test(value) ? 'possible' : 'off'}`];
  });
  const detail = [modules.sort().join(', '), ...nested].join('; ');
  if (!modules.includes('kvm_pvm')) return ok('kernel modules', detail);
  return note(
    'kernel modules',
    `${detail}; kvm_pvm runs guests without VT-x or SVM: real-mode code is emulated instruction by instruction, and an ordinary Linux guest may not boot`,
  );
}

/** Without it s390x makes no VMs up to 6.19. */
const PGSTE_MEND = 'sudo sysctl vm.allocate_pgste=1, then start Node anew';

/** s390x up to 6.19: a process that makes VMs needs page tables with room for guest storage keys. Newer kernels lack the file. */
export function examinePgste(host: Host): Finding | undefined {
  const allocates = host.read('/proc/sys/vm/allocate_pgste');
  if (host.nodeArch !== 's390x' || allocates === undefined) return undefined;
  const subject = 'vm.allocate_pgste';
  return allocates === '1'
    ? ok(subject, '1: page tables have room for guest storage keys')
    : fail(subject, '0: KVM_CREATE_VM gives EINVAL to Node', PGSTE_MEND);
}

/** ppc64: which KVM there is, and how the host's own memory is translated, on which it depends what guests may have. */
export function examinePpc64(host: Host): Finding[] {
  if (archOfNode(host.nodeArch) !== 'ppc64') return [];
  const modules = host.list('/sys/module');
  const found: Finding[] = [];
  if (modules.includes('kvm_hv'))
    found.push(ok('HV or PR', 'kvm_hv: guests run in the processor, with hashed page tables of their own'));
  else if (modules.includes('kvm_pr')) {
    const detail =
      'kvm_pr alone: it runs guests as user programs, and has no HTAB descriptors, so that vm.hpt gets nothing';
    found.push(note('HV or PR', detail, 'sudo modprobe kvm_hv'));
  }
  const mmu = /^MMU\s*:\s*(\w+)/m.exec(host.read('/proc/cpuinfo') ?? '')?.[1];
  if (mmu !== undefined) {
    const guests = mmu === 'Radix' ? 'guests may have radix tables or hashed ones' : 'guests have hashed tables';
    found.push(ok('page tables', `${mmu}, the host's own: ${guests}`));
  }
  return found;
}

const ENOUGH_FILES = 4096;

/** RLIMIT_NOFILE and RLIMIT_MEMLOCK. */
export function examineLimits(host: Host): Finding[] {
  const limits = host.read('/proc/self/limits');
  const soft = (name: string): string | undefined => new RegExp(`^${name} +(\\S+)`, 'm').exec(limits ?? '')?.[1];
  const files = soft('Max open files');
  const locked = soft('Max locked memory');
  const found: Finding[] = [];
  if (files !== undefined) {
    const detail = `${files}; each VM and each vCPU takes one`;
    found.push(
      Number(files) < ENOUGH_FILES ? note('open files', detail, `ulimit -n ${ENOUGH_FILES}`) : ok('open files', detail),
    );
  }
  if (locked !== undefined) {
    const shown = locked === 'unlimited' ? locked : humanSize(Number(locked));
    found.push(ok('locked memory', `${shown}; KVM itself locks none, passing devices through does`));
  }
  return found;
}

/** The pool of huge pages, which mapHugetlb needs. */
export function examineHugePages(host: Host): Finding | undefined {
  const meminfo = host.read('/proc/meminfo');
  if (meminfo === undefined) return undefined;
  const field = (name: string): number => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(meminfo)?.[1] ?? 0);
  const transparent = /\[(\w+)\]/.exec(host.read('/sys/kernel/mm/transparent_hugepage/enabled') ?? '')?.[1];
  const beside = transparent === undefined ? '' : `; transparent ones: ${transparent}`;
  const total = field('HugePages_Total');
  if (total === 0) {
    return note(
      'huge pages',
      `the pool is empty, so mapHugetlb gives ENOMEM${beside}`,
      'sudo sysctl vm.nr_hugepages=64',
    );
  }
  const size = humanSize(field('Hugepagesize') * 1024);
  return ok('huge pages', `${field('HugePages_Free')} of ${total} are free, of ${size} each${beside}`);
}

/** Whether memory may be promised that isn't there: a terabyte of sparse guest. */
export function examineOvercommit(host: Host): Finding | undefined {
  const mode = host.read('/proc/sys/vm/overcommit_memory');
  if (mode === undefined) return undefined;
  return mode === '2'
    ? note(
        'overcommit',
        '2: sparse guests larger than the commit limit give ENOMEM',
        'sudo sysctl vm.overcommit_memory=0',
      )
    : ok('overcommit', `${mode}: sparse guests of any size`);
}

/** userfaultfd(2), with which a process brings pages when they are touched. */
export function examineUserfaultfd(host: Host): Finding | undefined {
  const unprivileged = host.read('/proc/sys/vm/unprivileged_userfaultfd');
  if (unprivileged === undefined) return undefined;
  const subject = 'userfaultfd';
  if (unprivileged === '1') return ok(subject, 'for every user, faults in the kernel too');
  if (host.canReadAndWrite('/dev/userfaultfd')) return ok(subject, 'this user may open /dev/userfaultfd');
  return note(
    subject,
    'without privilege only for faults in user mode, of which those that KVM takes for a guest are none',
    `sudo setfacl -m u:${host.user}:rw /dev/userfaultfd`,
  );
}

/** Programs that examples run, or are run with; the others need none. */
const EXAMPLES_TOOLS = [
  { example: 'vhost-user-disk', needs: 'qemu-storage-daemon', packages: ['qemu-system-common'] },
  { example: 'vhost-user-device', needs: 'qemu-system-x86_64', packages: ['qemu-system-x86'] },
];

/** What the package's examples need of this machine. */
export function examineExamples(host: Host): Finding {
  const missing = EXAMPLES_TOOLS.filter(({ needs }) => !host.has(needs));
  if (missing.length === 0) return ok('examples', `${EXAMPLES_TOOLS.map(({ needs }) => needs).join(', ')}: there`);
  const detail = missing.map(({ example, needs }) => `${example}.mjs lacks ${needs}`).join('; ');
  const packages = missing.flatMap((tool) => tool.packages);
  return note('examples', detail, `sudo apt-get install --no-install-recommends ${packages.join(' ')}`);
}

/** What `kvm-bridge lab` needs of this machine. */
export function examineLabs(host: Host): Finding {
  const machines = [...new Set(VARIANTS.map(({ machine }) => machine))];
  const lacks = machines.map((machine) => ({
    arch: machine.arch,
    missing: toolsFor(machine).filter(({ needs }) => !host.has(needs)),
  }));
  const ready = lacks.filter(({ missing }) => missing.length === 0).map(({ arch }) => arch);
  const parts = [
    ...(ready.length === 0 ? [] : [`${ready.join(', ')}: ready`]),
    ...lacks
      .filter(({ missing }) => missing.length > 0)
      .map(({ arch, missing }) => `${arch} lacks ${missing.map(({ needs }) => needs).join(', ')}`),
  ];
  const packages = new Set(lacks.flatMap(({ missing }) => missing.flatMap((tool) => tool.packages)));
  if (packages.size === 0) return ok('labs', parts.join('; '));
  return note('labs', parts.join('; '), `sudo apt-get install --no-install-recommends ${[...packages].join(' ')}`);
}
