import type { NodeData, SpaceData } from '../data.ts';
import { hex, size } from './format.ts';

/** So many lines are made at a time. */
const SLICE = 500;

/** Address spaces, to be unfolded level by level: a level is made when it is first opened. */
export class SpaceTree {
  readonly #spaces: readonly SpaceData[];
  readonly #parent: HTMLElement;
  readonly #chosen: (pa: number) => void;
  readonly #slotSays: (slot: number) => string;

  constructor(
    parent: HTMLElement,
    spaces: readonly SpaceData[],
    chosen: (pa: number) => void,
    slotSays: (slot: number) => string,
  ) {
    this.#parent = parent;
    this.#slotSays = slotSays;
    this.#spaces = spaces;
    this.#chosen = chosen;
    for (const space of spaces) parent.append(this.#space(space));
  }

  /** Unfolds the way to an address in a space. @returns where it leads, or undefined */
  show(space: number, va: bigint): number | undefined {
    let within: HTMLElement = this.#parent.children[space] as HTMLElement;
    let nodes = this.#spaces[space]!.nodes;
    for (;;) {
      unfold(within);
      const index = nodes.findIndex((node) => va >= BigInt(node.va) && va - BigInt(node.va) < BigInt(node.size));
      const node = nodes[index];
      if (node === undefined) return undefined;
      while (within.querySelector(`:scope > ul > [data-index="${index}"]`) === null) {
        const more = within.querySelector<HTMLButtonElement>(':scope > ul > .more > button');
        if (more === null) return undefined;
        more.click();
      }
      const line = within.querySelector<HTMLElement>(`:scope > ul > [data-index="${index}"]`)!;
      if (node.nodes === undefined) {
        mark(line);
        return node.pa === undefined ? undefined : node.pa + Number(va - BigInt(node.va));
      }
      within = line.querySelector<HTMLElement>(':scope > details')!;
      nodes = node.nodes;
      mark(within.querySelector<HTMLElement>(':scope > summary')!);
    }
  }

  /** Virtual addresses at which a physical one is seen. */
  virtualOf(pa: number): Seen[] {
    return this.#spaces.flatMap(({ nodes }, space) => [...seen(nodes, pa, space)]);
  }

  #space({ name, nodes, cut }: SpaceData): HTMLElement {
    const details = document.createElement('details');
    details.append(element('summary', name));
    if (cut !== undefined) details.append(element('p', cut));
    if (nodes.length === 0 && cut === undefined) details.append(element('p', 'Nothing is mapped.'));
    this.#fillWhenOpened(details, nodes);
    return details;
  }

  #fillWhenOpened(details: HTMLDetailsElement, nodes: readonly NodeData[]): void {
    details.addEventListener('toggle', () => {
      if (!details.open || details.querySelector(':scope > ul') !== null) return;
      const list = document.createElement('ul');
      details.append(list);
      this.#fill(list, nodes, 0);
    });
  }

  #fill(list: HTMLElement, nodes: readonly NodeData[], from: number): void {
    for (const [i, node] of nodes.slice(from, from + SLICE).entries()) {
      const item = this.#item(node);
      item.dataset.index = String(from + i);
      list.append(item);
    }
    const left = nodes.length - from - SLICE;
    if (left <= 0) return;
    const more = element('li', '');
    more.className = 'more';
    const button = element('button', `${left} more`);
    button.addEventListener('click', () => {
      more.remove();
      this.#fill(list, nodes, from + SLICE);
    });
    more.append(button);
    list.append(more);
  }

  #item(node: NodeData): HTMLElement {
    const item = document.createElement('li');
    if (node.nodes === undefined) {
      item.append(...this.#line(node));
      return item;
    }
    const details = document.createElement('details');
    const summary = element('summary', '');
    summary.append(...this.#line(node));
    details.append(summary);
    this.#fillWhenOpened(details, node.nodes);
    item.append(details);
    return item;
  }

  #line({ va, size: bytes, level, says, entry, pa, slot }: NodeData): HTMLElement[] {
    const parts = [
      element('code', va),
      element('span', `${level}, ${size(Number(bytes))}`),
      ...(entry === undefined ? [] : [element('code', entry)]),
      element('span', slot === undefined ? says : `${says}: ${this.#slotSays(slot)}`),
    ];
    if (pa !== undefined) {
      const to = element('button', `→ gpa ${hex(pa)}`);
      to.addEventListener('click', () => this.#chosen(pa));
      parts.push(to);
    }
    return parts;
  }
}

/** A virtual address at which a physical one is seen, and the slot of the hashed page table that says so. */
export interface Seen {
  readonly space: number;
  readonly va: bigint;
  readonly slot: number | undefined;
}

function* seen(nodes: readonly NodeData[], pa: number, space: number): Generator<Seen> {
  for (const { va, size: bytes, pa: from, nodes: below, slot } of nodes) {
    if (below !== undefined) yield* seen(below, pa, space);
    else if (from !== undefined && pa >= from && pa < from + Number(bytes)) {
      yield { space, va: BigInt(va) + BigInt(Math.floor(pa - from)), slot };
    }
  }
}

/** Opens it at once, and not when the browser gets round to telling. */
function unfold(details: HTMLElement): void {
  const which = details as HTMLDetailsElement;
  which.open = true;
  which.dispatchEvent(new Event('toggle'));
}

function mark(line: HTMLElement): void {
  for (const other of document.querySelectorAll('.marked')) other.classList.remove('marked');
  line.classList.add('marked');
  line.scrollIntoView({ block: 'center' });
}

function element<K extends keyof HTMLElementTagNameMap>(name: K, text: string): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
