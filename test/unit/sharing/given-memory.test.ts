import { fstatSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Descriptor, Mapping } from '../../../lib/index.ts';
import { GivenMemory } from '../../../lib/sharing/table/given-memory.ts';
import { UNIT } from '../handles/backends.ts';
import { hostCalls, openDescriptors } from './host.ts';

const OF_ANOTHER_PROCESS = 0;
const F_SEAL_SHRINK = 2;

describe('memory that an owner in another process has sent', () => {
  it('is kept until the table has had the chance to tell of it, and then for as long as it does', (test) => {
    const calls = hostCalls(test);
    const before = openDescriptors();
    const given = new GivenMemory(calls, OF_ANOTHER_PROCESS);
    using ram = Mapping.memfd(calls, UNIT);
    calls.sharing!.addSeals(ram.fd, F_SEAL_SHRINK);
    const memory = fstatSync(ram.fd, { bigint: true }).ino;
    const region = { memory, memoryBytes: UNIT, ownerFd: -1 };
    const isThere = (): boolean => given.of(region).window(0) !== undefined;
    const send = (since: bigint): void => given.add(new Descriptor(calls, calls.sharing!.duplicate(ram.fd)), since);
    send(3n);
    // Looked at for another reason, before the owner has written the table.
    given.keepOnly(new Set(), 3n);
    expect(isThere()).toBe(true);
    given.keepOnly(new Set([memory]), 4n);
    expect(isThere()).toBe(true);
    // It goes, and comes again before anybody here has looked.
    send(5n);
    given.keepOnly(new Set(), 5n);
    expect(isThere()).toBe(true);
    given.keepOnly(new Set(), 6n);
    expect(isThere()).toBe(false);
    expect(openDescriptors()).toBe(before + 1);
    given.close();
  });
});
