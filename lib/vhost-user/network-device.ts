import { checkBytes, checkFunction, checkInstance, checkInteger, checkOptions } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import type { VirtioDevice } from './device.ts';
import { bit } from './protocol.ts';
import { Chain } from './virtqueue/chain.ts';

/** Numbers of virtio-net. */
export const NETWORK = {
  /** Queues. */
  RECEIVE: 0,
  TRANSMIT: 1,
  /** Bit number of the feature that the configuration space begins with the address. */
  MAC: 5,
  /** Bytes in front of each frame. */
  HEADER: 12,
} as const;

export interface NetworkDeviceOptions {
  /** Called with each frame that a driver sends, from the destination address on, without a checksum. */
  readonly onFrame: (frame: Uint8Array) => void;
  /** The address that a driver is told, of 6 bytes; without one it makes one up, or the front end has it. */
  readonly mac?: Uint8Array;
  /** Frames that wait for a driver who gives no room for them; those beyond are dropped. 256 by default. */
  readonly backlog?: number;
}

/** Larger ones need features that this does not offer. */
const MOST_FRAME = 1514;

/** A network card: one pair of queues, and frames without offloads. */
export class NetworkDevice implements VirtioDevice {
  readonly queues = 2;
  readonly features: bigint;
  readonly config: Uint8Array;
  /** Frames that were dropped since a driver gave no room for them, or too little. */
  dropped = 0;
  readonly #onFrame: (frame: Uint8Array) => void;
  readonly #backlog: number;
  readonly #waiting: Uint8Array[] = [];
  /** Room that the driver has given, in order. */
  #room: { readonly chain: Chain; readonly fill: (written: number | undefined) => void }[] = [];
  #isStopping = false;

  /** @throws RangeError for an address that has not 6 bytes */
  constructor(options: NetworkDeviceOptions) {
    const { onFrame, mac, backlog = 256 } = checkOptions(options, { onFrame: true, mac: true, backlog: true });
    checkFunction(onFrame, 'options.onFrame');
    if (mac !== undefined && checkBytes(mac, 'options.mac').length !== 6)
      throw outOfRange('options.mac.length', '6', mac.length);
    this.#onFrame = onFrame;
    this.#backlog = checkInteger(backlog, 'options.backlog', 0, 0x10_0000);
    this.features = mac === undefined ? 0n : bit(NETWORK.MAC);
    this.config = Uint8Array.from(mac ?? []);
  }

  /** Hands a frame to the driver, as soon as it gives room. @throws RangeError for more than 1514 bytes */
  send(frame: Uint8Array): void {
    if (checkBytes(frame, 'frame').length > MOST_FRAME)
      throw outOfRange('frame.length', `at most ${MOST_FRAME}`, frame.length);
    if (this.#waiting.length >= this.#backlog && this.#room.length === 0) this.dropped++;
    else this.#waiting.push(Uint8Array.from(frame));
    this.#deliver();
  }

  handle(chain: Chain, queue: number): number | Promise<number | undefined> {
    checkInstance(chain, 'chain', Chain);
    checkInteger(queue, 'queue', 0, NETWORK.TRANSMIT);
    if (queue === NETWORK.RECEIVE) {
      const filled = new Promise<number | undefined>((fill) => this.#room.push({ chain, fill }));
      this.#isStopping = false;
      this.#deliver();
      return filled;
    }
    const frame = new Uint8Array(Math.min(MOST_FRAME, Math.max(0, chain.readableLength - NETWORK.HEADER)));
    chain.read(NETWORK.HEADER, frame);
    this.#onFrame(frame);
    return 0;
  }

  /** Room that was not used is the next device's. */
  stopping(queue: number): void {
    if (queue !== NETWORK.RECEIVE) return;
    this.#isStopping = true;
    for (const { fill } of this.#room.splice(0)) fill(undefined);
  }

  reset(): void {
    this.#room = [];
  }

  #deliver(): void {
    while (!this.#isStopping && this.#room.length > 0 && this.#waiting.length > 0) {
      const { chain, fill } = this.#room.shift()!;
      const frame = this.#waiting.shift()!;
      const isFitting = chain.writableLength >= NETWORK.HEADER + frame.length;
      if (!isFitting) this.dropped++;
      fill(isFitting ? put(chain, frame) : 0);
    }
  }
}

function put(chain: Chain, frame: Uint8Array): number {
  const header = new Uint8Array(NETWORK.HEADER);
  // num_buffers: one.
  header[10] = 1;
  return chain.write(0, header) + chain.write(NETWORK.HEADER, frame);
}
