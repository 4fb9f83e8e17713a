/** The colours of the page, which follow its theme: canvases take them from the style sheet. */
export interface Colours {
  readonly text: string;
  readonly faint: string;
  readonly line: string;
  readonly ground: string;
  readonly mark: string;
  /** From nothing to all, 0 to 1. */
  readonly ramp: (share: number) => string;
  /** A storage key by its access-control bits; fetch protection is darker. */
  readonly key: (key: number) => string;
}

const FETCH_PROTECTION = 0x08;

export function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const isDark = document.documentElement.dataset.theme === 'dark';
  return {
    text: of('text'),
    faint: of('faint'),
    line: of('line'),
    ground: of('ground'),
    mark: of('mark'),
    ramp: (share) => {
      const light = isDark ? 24 + 50 * share : 90 - 55 * share;
      return `hsl(${215 - 15 * share} ${30 + 50 * share}% ${light}%)`;
    },
    key: (key) => {
      const access = key >> 4;
      const light = (isDark ? 60 : 48) - ((key & FETCH_PROTECTION) === 0 ? 0 : 18);
      // Access key 0 is most of a Linux guest: quiet.
      return access === 0 ? `hsl(215 12% ${light}%)` : `hsl(${(access * 137) % 360} 65% ${light}%)`;
    },
  };
}
