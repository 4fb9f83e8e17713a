import { axisBottom } from 'd3-axis';
import { scaleLinear } from 'd3-scale';
import { select } from 'd3-selection';
import { zoomIdentity } from 'd3-zoom';
import type { LayerData, MemoryData, RegionData } from '../data.ts';
import { type Colours, colours } from './colours.ts';
import { hex, keyText, size } from './format.ts';
import { runsIn, valueAt } from './runs.ts';
import { ZoomedCanvas } from './zoomed-canvas.ts';

const ROW = 26;
const GAP = 4;
const LABELS = 150;
const AXIS = 26;

/** Guest physical memory along one axis, a row for the regions and one for each layer, to be zoomed down to a page. */
export class MemoryMap {
  readonly #memory: MemoryData;
  readonly #pageSize: number;
  readonly #canvas: ZoomedCanvas;
  readonly #axis: SVGSVGElement;
  #marked: number | undefined;

  constructor(parent: HTMLElement, memory: MemoryData, pageSize: number, chosen: (gpa: number) => void) {
    this.#memory = memory;
    this.#pageSize = pageSize;
    this.#canvas = new ZoomedCanvas(
      parent,
      'Map of guest physical memory',
      () => this.draw(),
      () => chosen(this.#at(this.#width / 2)),
    );
    const { element } = this.#canvas;
    this.#axis = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    this.#axis.classList.add('axis');
    this.#axis.setAttribute('height', String(AXIS));
    this.#axis.setAttribute('aria-hidden', 'true');
    element.after(this.#axis);
    element.addEventListener('mousemove', (event) => this.#tell(this.#at(event.offsetX - LABELS)));
    element.addEventListener('click', (event) => chosen(this.#at(event.offsetX - LABELS)));
    new ResizeObserver(() => this.#resized()).observe(parent);
  }

  /** Marks an address, and brings it into sight. */
  show(gpa: number): void {
    this.#marked = gpa;
    const pages = 64;
    const k = Math.max(this.#canvas.transform.k, this.#memory.end / (pages * this.#pageSize));
    const x = this.#full()(gpa);
    this.#canvas.moveTo(zoomIdentity.translate(this.#width / 2 - k * x, 0).scale(k));
    this.#tell(gpa);
    this.draw();
  }

  draw(): void {
    const paint = this.#canvas.paint();
    const palette = colours();
    paint.font = '12px system-ui, sans-serif';
    paint.textBaseline = 'middle';
    this.#label(paint, 0, 'regions', palette);
    for (const [row, { name }] of this.#memory.layers.entries()) this.#label(paint, row + 1, name, palette);
    paint.save();
    paint.beginPath();
    paint.rect(LABELS, 0, this.#width, this.#height);
    paint.clip();
    paint.translate(LABELS, 0);
    for (const region of this.#memory.regions) this.#region(paint, region, palette);
    for (const [row, layer] of this.#memory.layers.entries()) this.#layer(paint, row + 1, layer, palette);
    if (this.#marked !== undefined) {
      paint.fillStyle = palette.mark;
      paint.fillRect(this.#scale()(this.#marked) - 1, 0, 2, this.#height);
    }
    paint.restore();
    this.#drawAxis();
  }

  #label(paint: CanvasRenderingContext2D, row: number, name: string, { text }: Colours): void {
    paint.fillStyle = text;
    paint.textAlign = 'right';
    paint.fillText(name, LABELS - 8, row * (ROW + GAP) + ROW / 2, LABELS - 8);
  }

  #region(paint: CanvasRenderingContext2D, { gpa, size: bytes, name }: RegionData, palette: Colours): void {
    const scale = this.#scale();
    const [from, to] = [Math.max(scale(gpa), -1), Math.min(scale(gpa + bytes), this.#width + 1)];
    if (to <= from) return;
    paint.fillStyle = palette.faint;
    paint.strokeStyle = palette.line;
    paint.fillRect(from, 0, Math.max(to - from, 1), ROW);
    paint.strokeRect(from, 0.5, Math.max(to - from, 1), ROW - 1);
    if (to - from < 40) return;
    paint.fillStyle = palette.text;
    paint.textAlign = 'left';
    paint.fillText(`${name}, ${size(bytes)}`, from + 6, ROW / 2, to - from - 12);
  }

  #layer(paint: CanvasRenderingContext2D, row: number, layer: LayerData, palette: Colours): void {
    const scale = this.#scale();
    const y = row * (ROW + GAP);
    paint.fillStyle = palette.ground;
    paint.fillRect(0, y, this.#width, ROW);
    const [from, to] = [this.#at(0), this.#at(this.#width)].map((gpa) => gpa / this.#pageSize);
    for (const [first, end, value] of runsIn(layer, from!, to! + 1)) {
      const x = scale(first * this.#pageSize);
      paint.fillStyle = layer.kind === 'key' ? palette.key(value) : palette.ramp(value / Math.max(layer.most, 1));
      paint.fillRect(x, y, Math.max(scale(end * this.#pageSize) - x, 0.6), ROW);
    }
  }

  #drawAxis(): void {
    const axis = axisBottom(this.#scale())
      .tickValues(this.#ticks())
      .tickFormat((gpa) => hex(Number(gpa)));
    select(this.#axis).selectAll('g').data([null]).join('g').attr('transform', `translate(${LABELS} 0)`);
    select(this.#axis).select<SVGGElement>('g').call(axis);
  }

  /** Addresses that are round in hex. */
  #ticks(): number[] {
    const [from, to] = [this.#at(0), this.#at(this.#width)];
    const step = 2 ** Math.ceil(Math.log2((130 * (to - from)) / this.#width));
    const first = Math.ceil(from / step);
    return Array.from({ length: Math.max(0, Math.floor(to / step) - first + 1) }, (_, i) => (first + i) * step);
  }

  #tell(gpa: number): void {
    const { regions, layers, end } = this.#memory;
    if (!(gpa >= 0 && gpa < end)) return;
    const page = Math.floor(gpa / this.#pageSize);
    const region = regions.find((each) => gpa >= each.gpa && gpa < each.gpa + each.size);
    this.#canvas.says = [
      `gpa ${hex(page * this.#pageSize)}`,
      region?.name ?? 'no memory',
      ...layers.flatMap((layer) => layerText(layer, page)),
    ].join(' · ');
  }

  get #width(): number {
    return Math.max(this.#canvas.element.clientWidth - LABELS, 10);
  }

  get #height(): number {
    return (this.#memory.layers.length + 1) * (ROW + GAP);
  }

  #full() {
    return scaleLinear([0, this.#memory.end], [0, this.#width]);
  }

  #scale() {
    return this.#canvas.transform.rescaleX(this.#full());
  }

  #at(x: number): number {
    return Math.min(Math.max(0, this.#scale().invert(x)), this.#memory.end - 1);
  }

  #resized(): void {
    // Twenty pixels a page are enough.
    const closest = (20 * this.#memory.end) / this.#pageSize / this.#width;
    this.#canvas.resize(this.#height, { width: this.#width, height: this.#height }, closest);
  }
}

/** What a layer has for a page. */
export function layerText(layer: LayerData, page: number): string[] {
  const value = valueAt(layer, page);
  if (value === undefined) return [];
  if (layer.kind === 'key') return [keyText(value)];
  if (layer.kind === 'heat') return [`dirty in ${value} of ${layer.most} passes`];
  return [layer.step === 1 ? layer.name : `${layer.name}: ${value} of ${layer.step} pages here`];
}
