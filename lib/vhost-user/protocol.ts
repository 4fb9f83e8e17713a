/** The numbers of the vhost-user protocol, and of what it carries of virtio. */

/** Requests of a front end (`VhostUserFrontendRequest`). */
export const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SET_BACKEND_REQ_FD: 21,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
} as const;

/** Requests of a back end, over a socket of their own (`VhostUserBackendRequest`). */
export const BACKEND_REQUEST = { CONFIG_CHANGE_MSG: 2 } as const;

const messageNames = new Map<number, string>(Object.entries(REQUEST).map(([name, value]) => [value, name]));

/** `SET_MEM_TABLE`; the number where it has no name here. */
export function messageName(request: number): string {
  return messageNames.get(request) ?? `request ${request}`;
}

/** Bits of a message's flags; the two lowest are the version, 1. */
export const MESSAGE_FLAG = { VERSION_MASK: 3, VERSION: 1, REPLY: 4, NEED_REPLY: 8 } as const;

/** Bit numbers of what a device offers and a driver takes, as far as they concern the transport. */
export const FEATURE = {
  LOG_ALL: 26,
  RING_INDIRECT_DESC: 28,
  RING_EVENT_IDX: 29,
  PROTOCOL_FEATURES: 30,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
} as const;

/** Bit numbers of the protocol features. */
export const PROTOCOL_FEATURE = {
  MQ: 0,
  LOG_SHMFD: 1,
  REPLY_ACK: 3,
  BACKEND_REQ: 5,
  CONFIG: 9,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
} as const;

/** Bits of a virtio device's status. */
export const STATUS = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Bit of the flags of SET_VRING_ADDR: what is written to the used ring is logged. */
export const VRING_LOG = 1;

/** Bytes of guest memory that a bit of the log stands for, on every host. */
export const LOG_PAGE = 0x1000;

/** Regions, and descriptors, of a SET_MEM_TABLE. */
export const BASELINE_REGIONS = 8;

/** The most descriptors in a split virtqueue. */
export const MAX_QUEUE_SIZE = 32768;

export const bit = (number: number): bigint => 1n << BigInt(number);

/** The set of some bit numbers. */
export const bits = (numbers: readonly number[]): bigint => numbers.reduce((set, number) => set | bit(number), 0n);

export const has = (set: bigint, number: number): boolean => (set & bit(number)) !== 0n;
