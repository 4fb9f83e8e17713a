import type { LoadHook, ResolveHook } from 'node:module';

/** What `kvm-bridge run` tells its hooks, which Node runs in a thread of their own. */
export interface ScriptHookData {
  /** The script's URL. */
  readonly script: string;
  /** Its text, where it comes from standard input. */
  readonly source: string | undefined;
  /** Where this package's own modules are found, for scripts that have no kvm-bridge beside them. */
  readonly home: string;
}

let data: ScriptHookData;

export function initialize(given: ScriptHookData): void {
  data = given;
}

export const resolve: ResolveHook = async (specifier, context, next) => {
  if (specifier === data.script) return { url: specifier, format: 'module', shortCircuit: true };
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!/^kvm-bridge(\/|$)/.test(specifier)) throw error;
    return next(specifier, { ...context, parentURL: data.home });
  }
};

/** The script is an ES module, whatever its name is and wherever it lies. */
export const load: LoadHook = async (url, context, next) => {
  if (url !== data.script) return next(url, context);
  if (data.source !== undefined) return { format: 'module', source: data.source, shortCircuit: true };
  return next(url, { ...context, format: 'module' });
};
