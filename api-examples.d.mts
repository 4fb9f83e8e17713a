export function exampleOfMethod(classes: readonly string[], name: string): string | undefined;
export function exampleOfFunction(module: string, name: string): string | undefined;
