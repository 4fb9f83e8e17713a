import type { TestContext } from 'vitest';
import { type Kvm, type KvmError, Mapping, type Vcpu, type VcpuExit, type Vm } from '../../../lib/index.ts';
import type { KvmCalls } from '../../../lib/raw.ts';
import { loadStores } from '../handles/guests.ts';

export const PAGES = 64;

/** Memory that may be served. */
export const kinds = {
  anonymous: (calls: KvmCalls) => Mapping.anonymous(calls, PAGES * calls.pageSize),
  memfd: (calls: KvmCalls) => Mapping.memfd(calls, PAGES * calls.pageSize),
};

export interface Guest {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly ram: Mapping;
  readonly page: number;
}

/** A guest that stores a byte to each page. */
export function guestOf(kvm: Kvm, test: TestContext, kind: keyof typeof kinds, pages: readonly number[]): Guest {
  const page = kvm.pageSize;
  const ram = kinds[kind](kvm.calls);
  const vm = kvm.createVm();
  vm.memory.addRam(0, ram);
  const vcpu = vm.createVcpu();
  test.onTestFinished(() => {
    vm.close();
    ram.close();
  });
  const addresses = pages.map((number) => number * page + 1);
  loadStores(kvm, vm, vcpu, addresses);
  return { kvm, vm, vcpu, ram, page };
}

/** How a run ended: an exit's reason, or an error's code. */
export const endOf = (run: Promise<VcpuExit>): Promise<string> =>
  run.then(
    ({ reason }) => reason,
    (error: KvmError) => error.code,
  );
