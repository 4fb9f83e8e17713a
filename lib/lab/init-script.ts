import { MODULES_FOLDER } from './guest-modules.ts';
import type { Variant } from './variants.ts';

/** Begins the console line with which init says why it gives up. */
export const INIT_FAILURE = 'lab: failed:';

/** What the guest runs once it is prepared. */
export interface GuestCommand {
  /** A command line for /bin/sh. */
  readonly line: string;
  /** Where it is run; no quotation mark in its path. */
  readonly folder: string;
  /** Set for a user's terminal: the command becomes the owner of the console. */
  readonly terminal?: { readonly columns: number; readonly rows: number; readonly type: string };
}

/** The guest's /init: loads the modules, prepares the machine as its description says, runs the command, and stops the machine. */
export function initScript(variant: Variant, command: GuestCommand, modules = MODULES_FOLDER): string {
  const { terminal } = command;
  const { modulesLeftOut } = variant.machine;
  const prepareTerminal = terminal === undefined ? [] : [`stty cols ${terminal.columns} rows ${terminal.rows}`];
  return `${[
    '#!/bin/busybox sh',
    '/bin/busybox --install -s /bin',
    'export PATH=/usr/bin:/bin HOME=/root',
    terminal === undefined ? 'export NO_COLOR=1' : `export TERM=${terminal.type}`,
    'mount -t devtmpfs dev /dev && mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /tmp',
    `give_up() { echo "${INIT_FAILURE} $*"; poweroff -f; }`,
    `for module in /${modules}/*.ko; do`,
    ...(modulesLeftOut === undefined ? [] : [`  case "$module" in ${modulesLeftOut}) continue ;; esac`]),
    '  [ ! -e "$module" ] || insmod "$module" || give_up "the kernel refused $' + '{module##*/}"',
    'done',
    ...variant.machine.beforeNode.map((line) => `{ ${line}; } || give_up '${line.replaceAll("'", '')}'`),
    `cd '${command.folder}'`,
    ...prepareTerminal,
    `${terminal === undefined ? '' : 'setsid cttyhack '}${command.line}`,
    'status=$?',
    // A finished job has been reported by now, and the machine been killed; who still reads this has nothing else to go by.
    terminal === undefined ? 'give_up "Node ended with status $status before it sent a result"' : 'poweroff -f',
  ].join('\n')}\n`;
}
