export function reportPage(): string;
