import type { HptData, LayerData, ReportData, TableData } from '../data.ts';
import { hex, keyText, parseAddress, size } from './format.ts';
import { GridMap } from './grid-map.ts';
import { layerText, MemoryMap } from './memory-map.ts';
import { valueAt } from './runs.ts';
import { SpaceTree } from './space-tree.ts';

const GROUP = 8;

/** The data behind the page: gzipped JSON, as text. */
async function data(): Promise<ReportData> {
  const bytes = Uint8Array.from(atob(document.getElementById('data')!.textContent!.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return (await new Response(stream).json()) as ReportData;
}

function section(title: string, note = ''): HTMLElement {
  const made = document.createElement('section');
  made.innerHTML = '<h2></h2><p class="note"></p><div></div>';
  made.querySelector('h2')!.textContent = title;
  made.querySelector('.note')!.textContent = note;
  document.querySelector('main')!.append(made);
  return made.querySelector('div')!;
}

/** Everything that shows the same addresses. */
class Page {
  readonly #data: ReportData;
  readonly #redraw: (() => void)[] = [];
  #map: MemoryMap | undefined;
  #keys: GridMap | undefined;
  #tree: SpaceTree | undefined;
  #table: ((group: number) => void) | undefined;
  /** What each valid entry of the hashed page table says. */
  readonly #slots: ReadonlyMap<number, string>;

  constructor(report: ReportData) {
    this.#data = report;
    this.#slots = new Map(report.hpt?.entries ?? []);
    document.title = report.title;
    document.querySelector('h1')!.textContent = report.title;
    document.querySelector('#about')!.replaceChildren(...report.about.map((line) => text('li', line)));
    this.#memory();
    this.#storageKeys();
    if (report.hpt !== undefined) this.#hpt(report.hpt);
    if (report.spaces.length > 0) {
      const note = 'Unfold a table to see its valid entries. A page that maps memory leads to the map.';
      this.#tree = new SpaceTree(
        section('Address spaces', note),
        report.spaces,
        (pa) => this.physical(pa),
        (slot) => this.#slots.get(slot) ?? '',
      );
    }
    for (const table of report.tables) section(table.name).append(tableOf(table));
    this.#search();
    this.#theme();
  }

  /** Shows a guest physical address everywhere. */
  physical(gpa: number): void {
    const { memory, pageSize } = this.#data;
    if (memory === undefined) return;
    this.#map?.show(Math.min(gpa, memory.end - 1));
    const page = Math.floor(gpa / pageSize);
    const keys = keysOf(memory.layers);
    if (keys !== undefined && valueAt(keys, page) !== undefined) this.#keys?.show(Math.floor(page / keys.step));
    const region = memory.regions.find((each) => gpa >= each.gpa && gpa < each.gpa + each.size);
    const seen = this.#tree?.virtualOf(gpa) ?? [];
    const slot = seen.find((each) => each.slot !== undefined)?.slot;
    if (slot !== undefined) this.#table?.(Math.floor(slot / GROUP));
    this.#found([
      `Guest physical ${hex(gpa)}: page ${hex(page)}, ${region === undefined ? 'no memory' : `${region.name} + ${hex(gpa - region.gpa)}`}`,
      ...memory.layers.flatMap((layer) => layerText(layer, page)),
      ...seen.slice(0, 20).map(({ space, va }) => `is ${hex(va)} in ${this.#data.spaces[space]!.name}`),
      ...(seen.length > 20 ? [`and at ${seen.length - 20} more virtual addresses`] : []),
    ]);
  }

  #virtual(space: number, va: bigint): void {
    const pa = this.#tree!.show(space, va);
    const where = `${hex(va)} in ${this.#data.spaces[space]!.name}`;
    if (pa === undefined) {
      this.#found([`${where}: is not mapped; unfolded as far as the tables lead`]);
      return;
    }
    this.physical(pa);
    const list = document.querySelector('#found')!;
    list.prepend(text('li', `${where} is guest physical ${hex(pa)}`));
  }

  #memory(): void {
    const { memory, pageSize } = this.#data;
    if (memory === undefined) return;
    const coarse = memory.layers.filter(({ step }) => step > 1);
    const heat = memory.layers.filter(({ kind }) => kind === 'heat');
    const note = [
      `${size(memory.end)}, to scale.`,
      ...heat.map(({ name, most }) => `${name}: the stronger, the more of them found the page dirty, up to ${most}.`),
      ...coarse.map(({ name, step }) => `${name} in cells of ${size(step * pageSize)}.`),
    ].join(' ');
    const map = new MemoryMap(section('Guest physical memory', note), memory, pageSize, (gpa) => this.physical(gpa));
    this.#map = map;
    this.#redraw.push(() => map.draw());
  }

  #storageKeys(): void {
    const { memory, pageSize } = this.#data;
    const keys = memory === undefined ? undefined : keysOf(memory.layers);
    if (memory === undefined || keys === undefined) return;
    const cell = keys.step * pageSize;
    const grid = new GridMap(
      section('Storage keys', `A cell is ${size(cell)}. Colours are access keys, darker where fetching is protected.`),
      {
        label: 'Map of storage keys',
        // As far as there are any.
        count: (keys.runs.at(-3) ?? 0) + (keys.runs.at(-2) ?? 1),
        colour: (at, palette) => {
          const key = valueAt(keys, at * keys.step);
          return key === undefined ? undefined : palette.key(key);
        },
        says: (at) => {
          const key = valueAt(keys, at * keys.step);
          return `gpa ${hex(at * cell)} · ${key === undefined ? 'no key' : keyText(key)}`;
        },
        chosen: (at) => this.physical(at * cell),
      },
    );
    this.#keys = grid;
    this.#redraw.push(() => grid.draw());
  }

  #hpt({ order, step, cells, entries }: HptData): void {
    const parent = section(
      'Hashed page table',
      `Order ${order}: ${size(2 ** order)}. A cell is ${step === 1 ? 'a group of eight entries' : `${step} groups`}.`,
    );
    const list = document.createElement('ol');
    const show = (cell: number): void => {
      list.start = cell * step * GROUP;
      const slots = Array.from({ length: step === 1 ? GROUP : 0 }, (_, i) => cell * GROUP + i);
      list.replaceChildren(...slots.map((slot) => text('li', this.#slots.get(slot) ?? 'not valid')));
    };
    const holder = document.createElement('div');
    parent.append(holder);
    const grid = new GridMap(holder, {
      label: 'Map of the groups of the hashed page table',
      count: cells.length,
      colour: (cell, palette) => (cells[cell] === 0 ? undefined : palette.ramp(cells[cell]! / (GROUP * step))),
      says: (cell) =>
        `${step === 1 ? `group ${cell}` : `groups ${cell * step} to ${(cell + 1) * step - 1}`} · ${cells[cell]} of ${GROUP * step} entries valid`,
      chosen: show,
    });
    if (entries === undefined)
      parent.append(text('p', 'There are too many entries to list; `kvm-bridge hpt dump` does.'));
    parent.append(list);
    this.#redraw.push(() => grid.draw());
    this.#table = (group) => {
      const cell = Math.floor(group / step);
      grid.show(cell);
      show(cell);
    };
  }

  #search(): void {
    const form = document.querySelector<HTMLFormElement>('#search')!;
    const input = form.querySelector('input')!;
    const which = form.querySelector('select')!;
    if (this.#data.memory === undefined) which.querySelector('option')!.remove();
    for (const [i, { name }] of this.#data.spaces.entries()) which.append(new Option(name, String(i)));
    form.hidden = which.options.length === 0;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const address = parseAddress(input.value);
      if (address === undefined)
        this.#found([
          `${JSON.stringify(input.value)} is no address: hex, with or without 0x, or a number with K, M, G or T`,
        ]);
      else if (which.value !== 'physical') this.#virtual(Number(which.value), address);
      else if (address < BigInt(this.#data.memory!.end)) this.physical(Number(address));
      else this.#found([`${hex(address)} is beyond the end of memory, ${hex(this.#data.memory!.end)}`]);
    });
    document.addEventListener('keydown', (event) => {
      // No address has one in it.
      if (event.key !== '/') return;
      event.preventDefault();
      input.focus();
      input.select();
    });
  }

  #found(lines: readonly string[]): void {
    document.querySelector('#found')!.replaceChildren(...lines.map((line) => text('li', line)));
  }

  #theme(): void {
    const show = (dark: boolean): void => {
      document.documentElement.dataset.theme = dark ? 'dark' : 'light';
      for (const draw of this.#redraw) draw();
    };
    const preference = matchMedia('(prefers-color-scheme: dark)');
    preference.addEventListener('change', ({ matches }) => show(matches));
    document
      .querySelector('#theme')!
      .addEventListener('click', () => show(document.documentElement.dataset.theme !== 'dark'));
    show(preference.matches);
  }
}

const keysOf = (layers: readonly LayerData[]): LayerData | undefined => layers.find(({ kind }) => kind === 'key');

function text(name: string, content: string): HTMLElement {
  const made = document.createElement(name);
  made.textContent = content;
  return made;
}

function tableOf({ head, rows }: TableData): HTMLElement {
  const table = document.createElement('table');
  const row = (name: string, cells: readonly (string | number)[]): HTMLElement => {
    const made = document.createElement('tr');
    made.append(...cells.map((cell) => text(name, String(cell))));
    return made;
  };
  table.append(row('th', head), ...rows.map((cells) => row('td', cells)));
  return table;
}

try {
  new Page(await data());
  document.body.dataset.ready = 'yes';
} catch (error) {
  document.querySelector('#about')!.replaceChildren(text('li', `This report cannot be shown: ${error}`));
  throw error;
}
