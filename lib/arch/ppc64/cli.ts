import type { ArchPart, CliArch, Walk, WalkedGuest } from '../../cli/arch/cli-arch.ts';
import { type Instruction, word } from '../../cli/arch/machine-code.ts';
import { DEVICE_GPA, RAM_SIZE } from '../../cli/tour/guest.ts';
import type { Vcpu } from '../../handles/vcpu.ts';
import type { Vm } from '../../handles/vm.ts';
import {
  encodeHpte,
  HPTES_PER_GROUP,
  Htab,
  htabStats,
  primaryGroup,
  type Segment,
  VRMA_VSID,
  vrmaSegment,
} from './model/index.ts';

/** There is no halt that user space sees: it ends in a loop, and is interrupted. */
const MACHINE_CODE: readonly Instruction[] = [
  word(0x3860_0041).is('li r3, 0x41'),
  word(0x3880_2000).is('li r4, 0x2000'),
  word(0x9864_0000).is('stb r3, 0(r4)'),
  word(0x3c80_0001).is('lis r4, 1'),
  word(0x9864_0000).is('next: stb r3, 0(r4)'),
  word(0x3884_1000).is('addi r4, r4, 0x1000'),
  word(0x3ca0_0002).is('lis r5, 2'),
  word(0x7c24_2840).is('cmpld r4, r5'),
  word(0x4180_fff0).is('blt next'),
  word(0x3c60_1122).is('lis r3, 0x1122'),
  word(0x6063_3344).is('ori r3, r3, 0x3344'),
  word(0x3880_5010).is('li r4, 0x5010'),
  word(0x9064_0000).is('stw r3, 0(r4)'),
  word(0x3860_005a).is('li r3, 0x5a'),
  word(0x3c80_d000).is('lis r4, 0xd000'),
  word(0x7884_0020).is('clrldi r4, r4, 32'),
  word(0x9864_0000).is('stb r3, 0(r4)'),
  word(0x8064_0004).is('lwz r3, 4(r4)'),
  word(0x3880_7000).is('li r4, 0x7000'),
  word(0x9064_0000).is('stw r3, 0(r4)'),
  word(0x4800_0000).is('here: b here'),
];

/** 64-bit, little-endian, real mode. */
const MSR_SF_LE = 0x8000_0000_0000_0001n;

function start(_vm: Vm, vcpu: Vcpu, pc: number): void {
  vcpu.ppc64.setRegs({ pc, msr: MSR_SF_LE });
}

/** The vCPU's SLB, or where that is empty the segment of real-mode accesses. */
function segmentsOf(vcpu: Vcpu | undefined): readonly Segment[] {
  const slb = vcpu === undefined ? [] : vcpu.ppc64.getSlb();
  return slb.length > 0 ? slb : [vrmaSegment()];
}

function walk(address: bigint, { vm, segments }: WalkedGuest): Walk {
  const found = vm.hpt.translate(address, segments ?? segmentsOf(vm.vcpus[0]));
  return { physical: found.result.ok ? found.result.ra : undefined, text: String(found) };
}

const ORDER = 18;
const HPTE_PAGE = 0x1000;

/** Lets a ppc64 guest's real-mode accesses go through a hashed page table, with an entry for each page it names. */
function useHashPageTable(vm: Vm, vcpu: Vcpu): ArchPart {
  vcpu.ppc64.enablePapr();
  vm.hpt.allocate(ORDER);
  const table = new Htab(ORDER);
  const segment = vrmaSegment();
  const map = (ra: number): void => {
    let slot = primaryGroup(segment, ra, ORDER) * HPTES_PER_GROUP;
    while (table.isValid(slot)) slot++;
    table.set(slot, encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: ra, ra, bolted: true }));
  };
  for (let ra = 0; ra < RAM_SIZE; ra += HPTE_PAGE) map(ra);
  map(DEVICE_GPA);
  vm.hpt.write(table);
  const entries = htabStats(table).valid;
  return {
    report() {
      const { valid, referenced, changed } = htabStats(vm.hpt.read());
      return `the guest ran on a hashed page table of order ${ORDER}. Of ${entries} entries written through its descriptor, ${valid} came back, ${referenced} of them referenced and ${changed} changed.`;
    },
  };
}

export const cli: CliArch = {
  registers: (vcpu) => Object.entries({ ...vcpu.ppc64.getRegs(), ...vcpu.ppc64.getKeyRegs() }),
  walk,
  machineCode: MACHINE_CODE,
  start,
  startsScripted: true,
  prepareArchPart: useHashPageTable,
  howToLoad: () => 'sudo modprobe kvm_hv (a POWER processor in hypervisor mode, or a pSeries that may nest)',
  capabilities: [
    ['PPC_PAPR', 'PAPR guests'],
    ['PPC_ALLOC_HTAB', 'hashed page tables'],
    ['PPC_HTAB_FD', 'reading and writing them by descriptor'],
    ['SPAPR_RESIZE_HPT', 'resizing them'],
    ['PPC_MMU_RADIX', 'radix guests'],
    ['PPC_MMU_HASH_V3', 'hash guests on POWER9 and later'],
  ],
};
