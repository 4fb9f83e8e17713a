import { IOEVENTFD, IRQFD } from '../../lib/uapi/flags.ts';
import { EVERYWHERE, type Scenario } from './scenario.ts';

/** Ioeventfds, irqfds and coalesced zones: what can be registered, and what collides. */
export const ioBusScenarios: readonly Scenario[] = [
  {
    name: 'io-bus/ioeventfd',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const a = calls.eventfd(0);
      const b = calls.eventfd(0);
      const { DATAMATCH, DEASSIGN, PIO } = IOEVENTFD;
      calls.ioeventfd(vm, 0x1000, 3, a, 0, 0);
      calls.ioeventfd(vm, 0xffff_ffff_ffff_ffffn, 4, a, 0, 0);
      calls.ioeventfd(vm, 0x1000, 4, a, 0x40, 0);
      calls.ioeventfd(vm, 0x1000, 0, a, DATAMATCH, 1);
      calls.ioeventfd(vm, 0x1000, 4, -1, 0, 0);
      calls.ioeventfd(vm, 0x1000, 4, vm, 0, 0);
      calls.ioeventfd(vm, 0x1000, 4, a, 0, 0);
      calls.ioeventfd(vm, 0x1000, 4, b, 0, 0);
      calls.ioeventfd(vm, 0x1000, 4, b, DATAMATCH, 7);
      calls.ioeventfd(vm, 0x1000, 2, b, DATAMATCH, 7);
      calls.ioeventfd(vm, 0x1000, 2, b, DATAMATCH, 8);
      calls.ioeventfd(vm, 0x1000, 2, b, DATAMATCH, 8);
      calls.ioeventfd(vm, 0x1000, 4, b, PIO, 0);
      calls.ioeventfd(vm, 0x1000, 2, a, DEASSIGN, 0);
      calls.ioeventfd(vm, 0x1000, 2, b, DEASSIGN | DATAMATCH, 9);
      calls.ioeventfd(vm, 0x1000, 2, b, DEASSIGN | DATAMATCH, 8);
      calls.ioeventfd(vm, 0x1000, 4, -1, DEASSIGN, 0);
      calls.ioeventfd(vm, 0x1000, 4, a, DEASSIGN, 0);
      calls.ioeventfd(vm, 0x1000, 0, a, 0, 0);
    },
  },
  {
    name: 'io-bus/eventfd-counts',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const fd = calls.eventfd(3);
      const counter = new Uint8Array(8);
      calls.read(fd, counter);
      calls.read(fd, counter);
      calls.read(fd, new Uint8Array(7));
      calls.write(fd, new Uint8Array(7));
      calls.write(fd, new Uint8Array(8).fill(0xff));
      calls.close(fd);
      calls.read(fd, counter);
    },
  },
  {
    name: 'io-bus/irqfd-without-irqchip',
    // ppc64 answers by how its interrupt controller was built in.
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const event = calls.eventfd(0);
      calls.irqfd(vm, event, 1, 4, -1);
      calls.irqfd(vm, event, 1, 0, -1);
      calls.irqfd(vm, event, 1, IRQFD.DEASSIGN, -1);
      calls.irqfd(vm, -1, 1, IRQFD.DEASSIGN, -1);
    },
  },
  {
    name: 'io-bus/irqfd',
    arches: ['x86_64'],
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      const event = calls.eventfd(0);
      calls.createIrqchip(vm);
      calls.createIrqchip(vm);
      calls.irqfd(vm, -1, 1, 0, -1);
      calls.irqfd(vm, vm, 1, 0, -1);
      calls.irqfd(vm, event, 1, 0, -1);
      calls.irqfd(vm, event, 1, 0, -1);
      calls.irqfd(vm, event, 2, 0, -1);
      calls.irqfd(vm, event, 1, IRQFD.DEASSIGN, -1);
      calls.irqfd(vm, event, 1, IRQFD.DEASSIGN, -1);
      calls.irqfd(vm, event, 2, 0, -1);
    },
  },
  {
    name: 'io-bus/coalesced-zones',
    arches: EVERYWHERE,
    run: (s) => {
      const { calls } = s;
      const { vm } = s.vm();
      calls.registerCoalescedMmio(vm, 0x1000, 0x100, 0);
      calls.registerCoalescedMmio(vm, 0x1080, 0x100, 0);
      calls.registerCoalescedMmio(vm, 0x1000, 0x100, 2);
      calls.unregisterCoalescedMmio(vm, 0x9000, 0x100, 0);
      calls.unregisterCoalescedMmio(vm, 0x1000, 0x100, 0);
      calls.unregisterCoalescedMmio(vm, 0x1000, 0x100, 2);
    },
  },
];
