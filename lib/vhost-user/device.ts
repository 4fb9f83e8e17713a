import { checkBigU64, checkBytes, checkCallback, checkInteger, checkMethods } from '../base/arguments.ts';
import { outOfRange } from '../base/errors.ts';
import type { Chain } from './virtqueue/chain.ts';
import { checkQueueSize } from './virtqueue/layout.ts';

/** A virtio device, as whoever serves it sees it: chains of its queues, and its configuration space. */
export interface VirtioDevice {
  /** Bits of the device type's own that it offers; those of the transport are added. */
  readonly features?: bigint;
  /** How many queues it has. */
  readonly queues: number;
  /** The most descriptors of a queue; 1024 by default. */
  readonly maxQueueSize?: number;
  /** What a driver reads of the configuration space, of up to 256 bytes. */
  readonly config?: Uint8Array;
  /** A driver writes to the configuration space. @throws what is reported as an error, and changes nothing */
  writeConfig?(offset: number, bytes: Uint8Array): void;
  /**
   * Serves a chain, at once or later, and any number of them at the same time.
   * @returns how many bytes it wrote into it, from the beginning of what is writable; undefined, while the queue is being stopped, for a
   *   chain that it has not touched, and leaves to whoever goes on
   * @throws what stops the queue until the driver begins anew: answer what a driver can do wrong in the chain instead
   */
  handle(chain: Chain, queue: number): number | Promise<number | undefined>;
  /** A queue is being stopped: what is held of it must end now, or be left. */
  stopping?(queue: number): void;
  /** The driver begins anew. */
  reset?(): void;
}

export const DEFAULT_QUEUE_SIZE = 1024;

/** So many queues a back end or front end takes. */
export const MOST_QUEUES = 256;
/** Bytes of a configuration space. */
export const MOST_CONFIG = 256;

/** Checks a device of a user's own. */
export function checkDevice(device: VirtioDevice): VirtioDevice {
  const { features, queues, maxQueueSize, config, writeConfig, stopping, reset } = checkMethods(device, 'device', [
    'handle',
  ]);
  if (features !== undefined) checkBigU64(features, 'device.features');
  checkInteger(queues, 'device.queues', 1, MOST_QUEUES);
  if (maxQueueSize !== undefined) checkQueueSize(maxQueueSize, 'device.maxQueueSize');
  if (config !== undefined && checkBytes(config, 'device.config').length > MOST_CONFIG) {
    throw outOfRange('device.config.length', `at most ${MOST_CONFIG}`, config.length);
  }
  for (const [name, method] of Object.entries({ writeConfig, stopping, reset }))
    checkCallback(method, `device.${name}`);
  return device;
}
