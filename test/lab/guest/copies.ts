import { setTimeout as sleep } from 'node:timers/promises';
import { diffHtabs, encodeHpte, VRMA_VSID } from '../../../lib/arch/ppc64/model/index.ts';
import { CMMA_USAGE, type HtabCopyPass, type Kvm, type Vm } from '../../../lib/index.ts';
import { identityTable, newVm, runForAWhile } from './migrate-hpt.ts';

/*
 * What one VM's frames have besides their contents, given to another VM's, and a hashed table that is copied while it becomes another one: each
 * with what it should have led to.
 */

export interface Copied {
  readonly what: string;
  /** What the other VM has not, or has otherwise; empty where all is there. */
  readonly wrong: readonly string[];
}

const MIB = 0x10_0000;
const FRAMES = 1024;
const SMALLEST_ORDER = 18;

/** The copies that an architecture has. */
export async function copies(kvm: Kvm, progress: (text: string) => void): Promise<readonly Copied[]> {
  progress('copies');
  if (kvm.arch === 's390x') return [copyKeys(kvm), copyCmma(kvm)];
  return kvm.arch === 'ppc64' ? [await copyDuringResize(kvm)] : [];
}

/** Sentences about what is not as it should be. */
class Findings {
  readonly wrong: string[] = [];

  expect(what: string, is: unknown, should: unknown): void {
    if (is !== should) this.wrong.push(`${what}: ${is}, and should be ${should}`);
  }

  /** Both have so many bytes, which are the same. */
  same(what: string, here: Uint8Array | null, there: Uint8Array | null): void {
    const differing = here?.findIndex((byte, i) => byte !== there?.[i]) ?? 0;
    this.expect(`${what}, length`, there?.length, here?.length ?? 'some');
    this.expect(`${what}, the first that differs`, differing, -1);
  }
}

function framesOf(kvm: Kvm): Vm {
  const vm = kvm.createVm();
  vm.cmma.enable();
  vm.memory.addRam(0, kvm.mapAnonymous(FRAMES * kvm.pageSize));
  return vm;
}

function copyKeys(kvm: Kvm): Copied {
  using vm = framesOf(kvm);
  using other = framesOf(kvm);
  const found = new Findings();
  found.expect('keys that nobody set', vm.storageKeys.copyTo(other), 0);
  vm.memory.fill(0, 4 * MIB, 1);
  vm.storageKeys.setBytes(0, new Uint8Array(FRAMES));
  vm.storageKeys.setBytes(0, Uint8Array.of(0x10));
  vm.storageKeys.setBytes(0x201, Uint8Array.of(0x32, 0x48));
  vm.storageKeys.setBytes(FRAMES - 1, Uint8Array.of(0xf8));
  found.expect('the key that was set', vm.storageKeys.getBytes(0x202, 1)![0]! & 0xf8, 0x48);
  // Memory of the target that nobody has touched.
  vm.storageKeys.copyTo(other);
  found.same('keys', vm.storageKeys.getBytes(0, FRAMES), other.storageKeys.getBytes(0, FRAMES));
  found.expect('keys once more', vm.storageKeys.copyTo(other), 0);
  vm.storageKeys.setBytes(0x201, Uint8Array.of(0));
  found.expect('frames with a key that became 0', vm.storageKeys.copyTo(other), 256);
  found.same('keys with one of 0', vm.storageKeys.getBytes(0, FRAMES), other.storageKeys.getBytes(0, FRAMES));
  return { what: 'storage keys', wrong: found.wrong };
}

function copyCmma(kvm: Kvm): Copied {
  using vm = framesOf(kvm);
  using other = framesOf(kvm);
  const found = new Findings();
  vm.memory.fill(0, 4 * MIB, 1);
  found.expect('values that nobody set', vm.cmma.copyTo(other), 0);
  vm.cmma.set(0x100, Uint8Array.of(CMMA_USAGE.VOLATILE, 0x41));
  vm.cmma.set(FRAMES - 1, Uint8Array.of(CMMA_USAGE.UNUSED));
  found.expect('frames', vm.cmma.copyTo(other), 512);
  found.same('values', vm.cmma.peek(0, FRAMES).values, other.cmma.peek(0, FRAMES).values);
  found.expect('values once more', vm.cmma.copyTo(other), 0);
  vm.cmma.set(0x101, Uint8Array.of(0));
  found.expect('frames with a value that became 0', vm.cmma.copyTo(other), 256);
  found.expect('the value that became 0', other.cmma.peek(0x101, 1).values[0], 0);
  return { what: 'CMMA values', wrong: found.wrong };
}

/** The source's table becomes one of another order after the first pass. */
async function copyDuringResize(kvm: Kvm): Promise<Copied> {
  using from = newVm(kvm);
  using to = newVm(kvm);
  const found = new Findings();
  from.hpt.allocate(SMALLEST_ORDER);
  from.hpt.write(identityTable());
  // The kernel resizes no table that no vCPU has been entered with.
  await runForAWhile(from);
  const order = SMALLEST_ORDER + 1;
  for (let wait = 1; wait > 0; wait = from.hpt.prepareResize(order)) await sleep(wait);
  const passes: HtabCopyPass[] = [];
  const entry = encodeHpte({ vsid: VRMA_VSID, segmentSize: '1T', offset: 0, ra: 0, bolted: true, pp: 0 });
  const result = await from.hpt.copyTo(to, {
    onPass: (pass) => {
      passes.push(pass);
      if (passes.length > 1) return;
      from.hpt.commitResize(order);
      const table = from.hpt.read();
      table.set(8, entry);
      from.hpt.write(table);
    },
  });
  found.expect(
    'passes',
    passes
      .map(({ pass }) => pass)
      .slice(0, 3)
      .join(),
    '0,0,1',
  );
  found.expect('passes that are told', result.length, passes.length - 1);
  found.expect('order', to.hpt.getOrder(), order);
  const [here, there] = [from.hpt.read(), to.hpt.read()];
  found.expect('the entry of the new table', there.isValid(8), true);
  found.expect('slots that differ', [...diffHtabs(here, there)].length, 0);
  return { what: 'a hashed table during a resize', wrong: found.wrong };
}
