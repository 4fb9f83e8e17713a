/** As much of DHCP (RFC 2131) as it takes to talk to a boot ROM: frames with IPv4 and UDP, without options of theirs. */
export const DHCP = { DISCOVER: 1, OFFER: 2, REQUEST: 3, ACK: 5 } as const;

const ETHERNET = 14;
const IP = 20;
const UDP = 8;
const BOOTP = ETHERNET + IP + UDP;
const COOKIE = BOOTP + 236;
const OPTIONS = COOKIE + 4;

export interface DhcpMessage {
  readonly type: number;
  readonly transaction: number;
  /** Address of the card. */
  readonly mac: Uint8Array;
  /** The address that is asked for, in option 50. */
  readonly requested: string | undefined;
}

/** A client's message; undefined for any other frame. */
export function decodeDhcp(frame: Uint8Array): DhcpMessage | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < OPTIONS || view.getUint16(12) !== 0x0800 || frame[ETHERNET] !== 0x45) return undefined;
  if (frame[ETHERNET + 9] !== 17 || view.getUint16(ETHERNET + IP + 2) !== 67) return undefined;
  if (view.getUint32(COOKIE) !== 0x6382_5363) return undefined;
  const options = new Map<number, Uint8Array>();
  for (let at = OPTIONS; at + 1 < frame.length && frame[at] !== 255; ) {
    const length = frame[at] === 0 ? -1 : frame[at + 1]!;
    if (length >= 0) options.set(frame[at]!, frame.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return {
    type: options.get(53)?.[0] ?? 0,
    transaction: view.getUint32(BOOTP + 4),
    mac: frame.slice(BOOTP + 28, BOOTP + 34),
    requested: options.get(50)?.join('.'),
  };
}

/** A server's answer: the address for the card, and whose it is. */
export function encodeDhcp(
  type: number,
  { transaction, mac }: DhcpMessage,
  address: string,
  server: string,
): Uint8Array {
  const ip = (text: string) => text.split('.').map(Number);
  const options = [
    ...[53, 1, type],
    ...[54, 4, ...ip(server)],
    ...[51, 4, 0, 0, 14, 16],
    ...[1, 4, 255, 255, 255, 0],
    255,
  ];
  const frame = new Uint8Array(OPTIONS + 64);
  const view = new DataView(frame.buffer);
  frame.set(mac, 0);
  frame.set([0x52, 0x54, 0, 0, 0, 1], 6);
  view.setUint16(12, 0x0800);
  frame.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, ...ip(server), 255, 255, 255, 255], ETHERNET);
  view.setUint16(ETHERNET + 2, frame.length - ETHERNET);
  view.setUint16(ETHERNET + 10, checksum(view, ETHERNET, IP));
  view.setUint16(ETHERNET + IP, 67);
  view.setUint16(ETHERNET + IP + 2, 68);
  // A checksum of 0 is none.
  view.setUint16(ETHERNET + IP + 4, frame.length - ETHERNET - IP);
  frame.set([2, 1, 6], BOOTP);
  view.setUint32(BOOTP + 4, transaction);
  frame.set(ip(address), BOOTP + 16);
  frame.set(ip(server), BOOTP + 20);
  frame.set(mac, BOOTP + 28);
  view.setUint32(COOKIE, 0x6382_5363);
  frame.set(options, OPTIONS);
  return frame;
}

function checksum(view: DataView, start: number, length: number): number {
  let sum = 0;
  for (let at = start; at < start + length; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
