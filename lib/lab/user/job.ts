/** What the agent in the guest is to run; it finds this as JSON. */
export interface UserJob {
  /** Node's command line there: options, the script, and what follows it. */
  readonly nodeArguments: readonly string[];
  /** Where it is run. */
  readonly folder: string;
  readonly environment: Readonly<Record<string, string>>;
  /** The folder whose files are brought back. */
  readonly out: string | undefined;
}
