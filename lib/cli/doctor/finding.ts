/** What the doctor found out about one thing. */
export interface Finding {
  /** What was looked at. */
  readonly subject: string;
  /** `fail`: the real KVM cannot be used. `note`: it can, and something is missing or worth knowing. */
  readonly status: 'ok' | 'note' | 'fail';
  readonly detail: string;
  /** The command, or the deed, that mends it. */
  readonly mend?: string;
}

export const ok = (subject: string, detail: string): Finding => ({ subject, status: 'ok', detail });

export const note = (subject: string, detail: string, mend?: string): Finding => ({
  subject,
  status: 'note',
  detail,
  ...(mend === undefined ? {} : { mend }),
});

export const fail = (subject: string, detail: string, mend: string): Finding => ({
  subject,
  status: 'fail',
  detail,
  mend,
});
