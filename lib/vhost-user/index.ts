/**
 * Devices in other processes: a front end gives a guest's memory and queues to a program that serves a device, a back end
 * serves a device to a program that has a guest.
 */

export { type BackEndOptions, VhostUserBackEnd } from './back-end/back-end.ts';
export { BLOCK, BLOCK_FEATURE, BlockDevice, type BlockDeviceOptions } from './block-device.ts';
export type { VirtioDevice } from './device.ts';
export { BlockDriver, type BlockDriverOptions } from './front-end/block-driver.ts';
export {
  type FrontEndOptions,
  type InflightMemory,
  type QueueStart,
  VhostUserFrontEnd,
} from './front-end/front-end.ts';
export { VirtioMmio, type VirtioMmioOptions } from './front-end/virtio-mmio.ts';
export { PageLog } from './log.ts';
export { NETWORK, NetworkDevice, type NetworkDeviceOptions } from './network-device.ts';
export { FEATURE, PROTOCOL_FEATURE } from './protocol.ts';
export { Chain } from './virtqueue/chain.ts';
export { DeviceQueue } from './virtqueue/device-queue.ts';
export { DriverQueue, type UsedChain } from './virtqueue/driver-queue.ts';
export { type ChainSegment, layOut, type QueueLayout, type QueueOptions } from './virtqueue/layout.ts';
