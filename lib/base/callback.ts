/** Calls back a user's function, if there is one. What it throws ends nothing of ours: it is thrown in a task of its own. */
export function callBack<Arguments extends readonly unknown[]>(
  callback: ((...args: Arguments) => void) | undefined,
  ...args: Arguments
): void {
  try {
    callback?.(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
