import { expect, it } from 'vitest';
import { rawIoctl } from '../../../lib/emulated/raw-ioctl.ts';
import { EmulatedKernel, ERRNO, type KvmCalls } from '../../../lib/raw.ts';
import type { Arch } from '../../../lib/uapi/arch.ts';
import { type RequestName, requestSize } from '../../../lib/uapi/requests.ts';

const ARCHES = ['x86_64', 's390x', 'ppc64', 'aarch64', 'riscv64'] as const;

/** Calls that answer 7, and note what they were asked. */
function noted(arch: Arch) {
  const asked: unknown[] = [];
  const calls = new Proxy(new EmulatedKernel({ arch }) as KvmCalls, {
    get: (target, name) =>
      typeof Reflect.get(target, name) === 'function'
        ? (...args: unknown[]) => {
            asked.push([name, ...args]);
            return 7;
          }
        : Reflect.get(target, name),
  });
  return { calls, asked };
}

/** A structure with these numbers at these places, in a host's byte order. */
function structOf(
  name: RequestName,
  little: boolean,
  fields: readonly (readonly [at: number, bytes: 4 | 8, value: bigint])[],
) {
  const bytes = new Uint8Array(requestSize(name));
  const view = new DataView(bytes.buffer);
  for (const [at, size, value] of fields) {
    if (size === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), little);
    else view.setBigUint64(at, value, little);
  }
  return bytes;
}

it('an argument is a value for requests without a structure', () => {
  const { calls, asked } = noted('x86_64');
  const wanted: readonly (readonly [RequestName, string, ...unknown[]])[] = [
    ['KVM_GET_API_VERSION', 'getApiVersion', 5n],
    ['KVM_CREATE_VM', 'createVm', 5n],
    ['KVM_CHECK_EXTENSION', 'checkExtension', 5n],
    ['KVM_GET_VCPU_MMAP_SIZE', 'getVcpuMmapSize', 5n],
    ['KVM_CREATE_VCPU', 'createVcpu', 5n],
    ['KVM_CREATE_IRQCHIP', 'createIrqchip'],
    ['KVM_RESET_DIRTY_RINGS', 'resetDirtyRings'],
  ];
  for (const [name, call, ...args] of wanted) {
    expect([rawIoctl(calls, 3, name, 5), ...asked.splice(0)]).toEqual([7, [call, 3, ...args]]);
    // An address is no number that anything asks for.
    expect(rawIoctl(calls, 3, name, new Uint8Array(8))).toBe(7);
    expect(asked.splice(0)).toEqual([[call, 3, ...(args.length === 0 ? [] : [1n])]]);
  }
  expect([rawIoctl(calls, 3, 'KVM_RUN', 0), rawIoctl(calls, 3, 'KVM_RUN', 0n), ...asked.splice(0)]).toEqual([
    7,
    7,
    ['run', 3, 0],
    ['run', 3, 0],
  ]);
  expect([rawIoctl(calls, 3, 'KVM_RUN', 1), rawIoctl(calls, 3, 'KVM_RUN', new Uint8Array(8)), asked]).toEqual([
    -ERRNO.EINVAL,
    -ERRNO.EINVAL,
    [],
  ]);
});

// Offsets are those of linux/kvm.h.
const STRUCTURES: readonly (readonly [RequestName, Parameters<typeof structOf>[2], readonly unknown[]])[] = [
  [
    'KVM_SET_USER_MEMORY_REGION',
    [
      [0, 4, 1n],
      [4, 4, 2n],
      [8, 8, 3n],
      [16, 8, 4n],
      [24, 8, 5n],
    ],
    ['setUserMemoryRegion', 9, 1, 2, 3n, 4n, 5n],
  ],
  [
    'KVM_SET_USER_MEMORY_REGION2',
    [
      [0, 4, 1n],
      [4, 4, 2n],
      [8, 8, 3n],
      [16, 8, 4n],
      [24, 8, 5n],
      [32, 8, 6n],
      [40, 4, -7n],
    ],
    ['setUserMemoryRegion2', 9, 1, 2, 3n, 4n, 5n, -7, 6n],
  ],
  [
    'KVM_ENABLE_CAP',
    [
      [0, 4, 1n],
      [4, 4, 2n],
      [8, 8, 3n],
      [16, 8, 4n],
      [24, 8, 5n],
      [32, 8, 6n],
    ],
    ['enableCap', 9, 1, 2, [3n, 4n, 5n, 6n]],
  ],
  [
    'KVM_IOEVENTFD',
    [
      [0, 8, 1n],
      [8, 8, 2n],
      [16, 4, 3n],
      [20, 4, -4n],
      [24, 4, 5n],
    ],
    ['ioeventfd', 9, 2n, 3, -4, 5, 1n],
  ],
  [
    'KVM_IRQFD',
    [
      [0, 4, -1n],
      [4, 4, 2n],
      [8, 4, 3n],
      [12, 4, -4n],
    ],
    ['irqfd', 9, -1, 2, 3, -4],
  ],
  ...(['KVM_REGISTER_COALESCED_MMIO', 'KVM_UNREGISTER_COALESCED_MMIO'] as const).map(
    (name) =>
      [
        name,
        [
          [0, 8, 1n],
          [8, 4, 2n],
          [12, 4, 3n],
        ],
        [name === 'KVM_REGISTER_COALESCED_MMIO' ? 'registerCoalescedMmio' : 'unregisterCoalescedMmio', 9, 1n, 2, 3],
      ] as const,
  ),
  [
    'KVM_SET_MEMORY_ATTRIBUTES',
    [
      [0, 8, 1n],
      [8, 8, 2n],
      [16, 8, 3n],
      [24, 8, 4n],
    ],
    ['setMemoryAttributes', 9, 1n, 2n, 3n, 4n],
  ],
  [
    'KVM_CREATE_GUEST_MEMFD',
    [
      [0, 8, 1n],
      [8, 8, 2n],
    ],
    ['createGuestMemfd', 9, 1n, 2n],
  ],
];

it('a structure’s numbers are those of the call, in the host’s byte order', () => {
  for (const [arch, little] of [
    ['x86_64', true],
    ['s390x', false],
  ] as const) {
    const { calls, asked } = noted(arch);
    for (const [name, fields, call] of STRUCTURES) {
      const struct = structOf(name, little, fields);
      expect([rawIoctl(calls, 9, name, struct), ...asked.splice(0)]).toEqual([7, call]);
      // Wherever it lies, and whatever is behind it.
      const wide = new Uint8Array(struct.length + 20);
      wide.set(struct, 8);
      expect([rawIoctl(calls, 9, name, wide.subarray(8)), ...asked.splice(0)]).toEqual([7, call]);
      for (const wrong of [struct.subarray(1), 5, 5n]) expect(rawIoctl(calls, 9, name, wrong)).toBe(-ERRNO.EFAULT);
      expect(asked).toEqual([]);
    }
  }
});

it('what has pointers in it is refused, and what belongs elsewhere is left to others', () => {
  const answers = (name: RequestName): unknown[] =>
    ARCHES.map((arch) => rawIoctl(noted(arch).calls, 3, name, new Uint8Array(600)));
  const EFAULT = -ERRNO.EFAULT;
  const none = undefined;
  expect(answers('KVM_GET_DIRTY_LOG')).toEqual(Array(5).fill(EFAULT));
  expect(answers('KVM_S390_KEYOP')).toEqual([none, EFAULT, none, none, none]);
  expect(answers('KVM_PPC_ALLOCATE_HTAB')).toEqual([none, none, EFAULT, none, none]);
  for (const name of [
    'KVM_TRANSLATE',
    'KVM_SET_SIGNAL_MASK',
    'UFFDIO_WAKE',
    'KVM_PPC_GET_COMPAT_CAPS',
    'KVM_ARM_VCPU_INIT',
  ] as const) {
    expect(answers(name), name).toEqual(Array(5).fill(none));
  }
});
