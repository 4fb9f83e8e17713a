import { encodeHtabStream, Htab, vrmaSegment } from '../../../lib/arch/ppc64/model/index.ts';
import type { Machine } from './attacked-machine.ts';
import type { Face } from './surface.ts';
import { HANDLE } from './typed-faces.ts';

const signal = new AbortController().signal;
const budget = { maxBytes: 4096, maxMs: 10, signal };
const reader = { boltedOnly: false, startIndex: 0 };
const stream = (): Uint8Array => encodeHtabStream(new Htab(18), { to: 16 });

/** What only ppc64 has. */
export const PPC64: Readonly<Record<string, Face<Machine>>> = {
  'vm.ppc64': { of: ({ vm }) => vm.ppc64, methods: { close: null } },
  'vm.hpt': {
    of: ({ vm }) => vm.hpt,
    methods: {
      close: null,
      getOrder: null,
      openWriter: null,
      smmuInfo: null,
      allocate: () => ({ order: 18 }),
      prepareResize: () => ({ order: 19 }),
      commitResize: () => ({ order: 19 }),
      resize: () => ({ order: 19, options: { signal } }),
      openReader: () => ({ options: reader }),
      read: () => ({ options: { boltedOnly: false } }),
      write: () => ({ source: stream() }),
      chunks: () => ({ options: { ...reader, ...budget } }),
      entries: () => ({ options: { ...reader, ...budget } }),
      createReadStream: () => ({ options: { boltedOnly: false, passes: 1, signal, highWaterMark: 1024 } }),
      createWriteStream: () => ({ options: { maxTurns: 4, signal, highWaterMark: 1024 } }),
      copyTo: ({ other }) => ({
        target: other,
        options: { settled: 256, maxPasses: 2, stop: () => {}, signal, onPass: () => {} },
      }),
      translate: () => ({
        ea: 0,
        slb: [vrmaSegment()],
        options: { access: 'load' },
      }),
      configureV3Mmu: () => ({ config: { radix: false, gtse: false, processTable: 0 } }),
    },
  },
  'vm.hpt.openReader()': {
    of: ({ reader }) => reader as object,
    methods: {
      ...HANDLE,
      owe: null,
      next: () => ({ maxBytes: 4096 }),
      chunks: () => ({ budget }),
      entries: () => ({ budget }),
    },
  },
  'vm.hpt.openWriter()': {
    of: ({ writer }) => writer as object,
    methods: { ...HANDLE, writeIf: null, write: () => ({ bytes: stream() }) },
  },
  'vcpu.ppc64': { of: ({ vcpu }) => vcpu.ppc64, methods: { enablePapr: null } },
};
