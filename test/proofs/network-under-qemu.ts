import { join } from 'node:path';
import type { KvmCalls } from '../../lib/calls/kvm-calls.ts';
import { UnixListener } from '../../lib/sharing/socket.ts';
import { NetworkDevice, VhostUserBackEnd } from '../../lib/vhost-user/index.ts';
import { DHCP, decodeDhcp, encodeDhcp } from './dhcp.ts';
import { QemuMachine } from './qemu-machine.ts';
import { QEMU, until } from './vhost-user-back-end.ts';

// Our network card serves a real QEMU, whose firmware boots from the network: its ROM asks for an address (DHCP), and takes the one that it
// is offered, which it can only know from our frames.

const MEMORY = 64 << 20;
const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const ADDRESS = '192.0.2.77';
const SERVER = '192.0.2.1';

function machineArgs(socket: string): string[] {
  return [
    ...['-nodefaults', '-display', 'none', '-m', '64'],
    ...['-object', `memory-backend-memfd,id=m,size=${MEMORY},share=on`, '-machine', 'pc,accel=tcg,memory-backend=m'],
    ...['-chardev', `socket,id=c,path=${socket}`, '-netdev', 'vhost-user,id=n,chardev=c'],
    ...['-device', 'virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,disable-legacy=on,bootindex=0'],
  ];
}

export async function networkUnderQemu(calls: KvmCalls, folder: string): Promise<boolean> {
  const heard = new Map<string, number>();
  const count = (what: string) => heard.set(what, (heard.get(what) ?? 0) + 1);
  let isRightCard = true;
  let isOursRequested = false;
  const card = new NetworkDevice({
    onFrame: (frame) => {
      const asked = decodeDhcp(frame);
      if (asked === undefined) {
        count(frame[12] === 8 && frame[13] === 6 ? 'ARP' : 'others');
        return;
      }
      isRightCard &&= Buffer.compare(asked.mac, MAC) === 0 && Buffer.compare(frame.subarray(6, 12), MAC) === 0;
      if (asked.type === DHCP.DISCOVER) {
        count('DISCOVER');
        card.send(encodeDhcp(DHCP.OFFER, asked, ADDRESS, SERVER));
      } else if (asked.type === DHCP.REQUEST) {
        count('REQUEST');
        isOursRequested = asked.requested === ADDRESS;
        card.send(encodeDhcp(DHCP.ACK, asked, ADDRESS, SERVER));
      }
    },
  });
  const errors: Error[] = [];
  const backEnd = new VhostUserBackEnd(calls, card, { onError: (error) => errors.push(error) });
  const listener = UnixListener.listen(calls, join(folder, 'card.sock'));
  const serving = listener
    .accept()
    .then((connection) => backEnd.serve(connection))
    .catch((error: Error) => errors.push(error));
  const machine = await QemuMachine.start(QEMU, machineArgs(listener.path), join(folder, 'card.qmp'));
  try {
    await until(() => heard.has('REQUEST'), 'the ROM asks for no address');
  } finally {
    await machine.stop();
    await serving;
    listener.close();
  }
  console.log(`frames of the ROM: ${[...heard].map(([what, times]) => `${times} ${what}`).join(', ')}`);
  console.log(
    `it took the address that it was offered: ${isOursRequested ? 'yes' : 'NO'}; ${card.dropped} frames dropped`,
  );
  for (const error of errors) console.log(`error: ${error.message}`);
  return isRightCard && isOursRequested && errors.length === 0;
}
