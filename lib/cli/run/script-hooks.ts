/** What `kvm-bridge run` tells its hooks. */
export interface ScriptHookData {
  /** The script's URL. */
  readonly script: string;
  /** Its text, where it comes from standard input. */
  readonly source: string | undefined;
  /** Where this package's own modules are found, for scripts that have no kvm-bridge beside them. */
  readonly home: string;
}

interface ResolveContext {
  readonly parentURL?: string | undefined;
}

interface LoadContext {
  readonly format?: string | null | undefined;
}

/** The hook that comes after this one. */
type Next<Context, Answer> = (what: string, context: Context) => Answer;

/** Hooks in the thread that imports, which Node has from 22.15 on; its types here are those of 20. */
export interface SyncHooks {
  resolve<R>(specifier: string, context: ResolveContext, next: Next<ResolveContext, R>): R | object;
  load<R>(url: string, context: LoadContext, next: Next<LoadContext, R>): R | object;
}

const isOurs = (specifier: string): boolean => /^kvm-bridge(\/|$)/.test(specifier);

function scriptAt(url: string): object {
  return { url, format: 'module', shortCircuit: true };
}

/** The script is an ES module, whatever its name is and wherever it lies, and finds this package. */
export function scriptHooks({ script, source, home }: ScriptHookData): SyncHooks {
  return {
    resolve(specifier, context, next) {
      if (specifier === script) return scriptAt(script);
      try {
        return next(specifier, context);
      } catch (error) {
        if (!isOurs(specifier)) throw error;
        return next(specifier, { ...context, parentURL: home });
      }
    },
    load(url, context, next) {
      if (url !== script) return next(url, context);
      if (source !== undefined) return { format: 'module', source, shortCircuit: true };
      return next(url, { ...context, format: 'module' });
    },
  };
}

// Up to Node 22.14 this module itself is what has the hooks, in a thread of their own.
let data: ScriptHookData;

export function initialize(given: ScriptHookData): void {
  data = given;
}

export async function resolve<R>(
  specifier: string,
  context: ResolveContext,
  next: Next<ResolveContext, Promise<R>>,
): Promise<R | object> {
  if (specifier === data.script) return scriptAt(specifier);
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!isOurs(specifier)) throw error;
    return next(specifier, { ...context, parentURL: data.home });
  }
}

export async function load<R>(
  url: string,
  context: LoadContext,
  next: Next<LoadContext, Promise<R>>,
): Promise<R | object> {
  return scriptHooks(data).load(url, context, next);
}
