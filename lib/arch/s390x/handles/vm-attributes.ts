import type { U64 } from '../../../base/u64.ts';
import { type Callee, callFailure } from '../../../calls/failure.ts';
import type { S390_VM_ATTRIBUTE } from '../../../uapi/flags.ts';

type Attribute = (typeof S390_VM_ATTRIBUTE)[keyof typeof S390_VM_ATTRIBUTE];

/** Integers behind attributes are in the host's byte order, which is big-endian on s390x. */
export class VmAttributes {
  readonly #owner: Callee;

  constructor(owner: Callee) {
    this.#owner = owner;
  }

  set(attribute: Attribute, value: U64 | null, why: (errno: number) => string | undefined = () => undefined): void {
    const [group, attr] = attribute;
    const result = this.#owner.calls.setDeviceAttr(this.#owner.fd, group, attr, value === null ? null : bytesOf(value));
    if (result < 0) throw callFailure('setDeviceAttr', result, this.#owner, { explanation: why(result) });
  }

  getU64(attribute: Attribute): bigint {
    const [group, attr] = attribute;
    const value = new Uint8Array(8);
    const result = this.#owner.calls.getDeviceAttr(this.#owner.fd, group, attr, value);
    if (result < 0) throw callFailure('getDeviceAttr', result, this.#owner);
    return new DataView(value.buffer).getBigUint64(0);
  }
}

function bytesOf(value: U64): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}
