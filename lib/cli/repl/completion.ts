import { HtabReader, HtabWriter } from '../../arch/ppc64/handles/htab-fd.ts';
import { Handle } from '../../calls/handle.ts';
import { Kvm } from '../../handles/kvm.ts';
import { Vcpu } from '../../handles/vcpu.ts';
import { Vm } from '../../handles/vm.ts';
import { VmIo } from '../../handles/vm-io.ts';
import { DirtyPages } from '../../memory/dirty-pages.ts';
import { GuestMemory } from '../../memory/guest-memory.ts';
import { Mapping } from '../../memory/mapping.ts';
import { Memslots } from '../../memory/memslots.ts';
import { MmioBus } from '../../memory/mmio-bus.ts';
import { PageFaults } from '../../memory/page-faults.ts';
import { RegionSet } from '../../memory/region-set.ts';
import { TrackedWrites } from '../../memory/tracked-writes.ts';
import { AddressSpace } from '../../sharing/address-space.ts';
import { Binding } from '../../sharing/binding.ts';
import { EventFd } from '../../sharing/eventfd.ts';
import { GuestBinding } from '../../sharing/guest-binding.ts';
import { Vmap } from '../../sharing/vmap.ts';
import type { DotCommand, Prompt } from './dot-command.ts';

type Complete = (line: string, done: (error: Error | null, result: [string[], string]) => void) => void;

/** Names that TypeScript hides (protected, @internal) and JavaScript doesn't, by the class that has them. */
export const HIDDEN: readonly (readonly [{ readonly prototype: object }, readonly string[]])[] = [
  [Handle, ['check', 'checkIoctl', 'failure', 'unmapLater', 'giveUp', 'fdClosed', 'untilReady']],
  [Kvm, ['htabLoops']],
  [Vm, ['harvestDirtyRings', 'vcpuClosed', 'vcpuCloses']],
  [Vcpu, ['dirtyRing', 'mapPart']],
  [VmIo, ['close', 'drainCoalesced', 'vcpuClosed']],
  [Mapping, ['assertOpen', 'changed', 'giveArray', 'partCall', 'pin', 'serve', 'takeArray', 'unpin', 'window']],
  [GuestMemory, ['dropViews', 'written']],
  [RegionSet, ['addUser', 'answerGuest', 'memoryChanged', 'removeUser']],
  [Memslots, ['addGuestMemfd', 'clear', 'unwatch', 'watch']],
  [DirtyPages, ['end', 'harvested', 'slotAdded', 'slotChanging', 'slotLogged', 'slotMoved', 'slotRemoved']],
  [EventFd, ['hold', 'letGo']],
  [HtabReader, ['owe']],
  [HtabWriter, ['writeIf']],
  [MmioBus, ['keep', 'settle', 'whyClosed']],
  [AddressSpace, ['committed', 'follow', 'hold', 'letGo', 'lookup', 'released', 'sharedLog', 'unbind']],
  [Binding, ['changed', 'changing', 'forget']],
  [GuestBinding, ['answerGuest']],
  [PageFaults, ['bring', 'dropViews']],
  [TrackedWrites, ['dropViews', 'memoryChanged']],
  [Vmap, ['changing', 'dropViews', 'revoke', 'revokeAll']],
];

/** Node's completion, but without what is not public, and with what may follow a dot command. */
export function completer(own: Complete, commands: Readonly<Record<string, DotCommand>>, prompt: Prompt): Complete {
  return (line, done) => {
    const [, name = '', start] = /^\.(\w+)\s+(\S*)$/.exec(line) ?? [];
    if (start !== undefined) {
      const words = Object.hasOwn(commands, name) ? (commands[name]?.words?.(prompt) ?? []) : [];
      done(null, [words.filter((word) => word.startsWith(start)), start]);
      return;
    }
    own(line, (error, result) => {
      if (error !== null || result === undefined) done(error, result);
      else done(null, [result[0].filter((name) => isPublic(name)), result[1]]);
    });
  };
}

/** Whether `vm.memory.table` and the like may be shown. */
function isPublic(name: string): boolean {
  const path = name.split('.');
  const member = path.pop()!;
  if (path.length === 0 || !path.every((part) => /^[\w$]+$/.test(part))) return !member.startsWith('_');
  let owner: unknown = globalThis;
  for (const part of path) owner = owner === null || owner === undefined ? undefined : Reflect.get(Object(owner), part);
  return isPublicMember(Object(owner) as object, member);
}

/** Whether a member of an object is not one of those that TypeScript hides. */
export function isPublicMember(object: object, member: string): boolean {
  return !HIDDEN.some(
    ([{ prototype }, names]) => names.includes(member) && Object.prototype.isPrototypeOf.call(prototype, object),
  );
}
