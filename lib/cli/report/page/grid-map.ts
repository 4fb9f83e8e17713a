import { zoomIdentity } from 'd3-zoom';
import { type Colours, colours } from './colours.ts';
import { ZoomedCanvas } from './zoomed-canvas.ts';

/** What a grid shows: cells in reading order. */
export interface Grid {
  readonly label: string;
  readonly count: number;
  colour(cell: number, palette: Colours): string | undefined;
  says(cell: number): string;
  chosen(cell: number): void;
}

const HEIGHT = 320;
/** Pixels from which a cell has a border. */
const BORDERED = 6;

/** Cells of equal worth as a picture of rows, to be zoomed down to a cell. */
export class GridMap {
  readonly #grid: Grid;
  readonly #columns: number;
  readonly #rows: number;
  readonly #canvas: ZoomedCanvas;
  #marked: number | undefined;

  constructor(parent: HTMLElement, grid: Grid) {
    this.#grid = grid;
    // A power of two, so that rows begin at round addresses; wider than high.
    this.#columns = 2 ** Math.ceil(Math.log2(Math.sqrt(grid.count * 3)));
    this.#rows = Math.ceil(grid.count / this.#columns);
    this.#canvas = new ZoomedCanvas(
      parent,
      grid.label,
      () => this.draw(),
      () => this.#choose(this.#width / 2, HEIGHT / 2),
    );
    const { element } = this.#canvas;
    element.addEventListener('mousemove', ({ offsetX, offsetY }) => {
      const cell = this.#cellAt(offsetX, offsetY);
      if (cell !== undefined) this.#canvas.says = grid.says(cell);
    });
    element.addEventListener('click', ({ offsetX, offsetY }) => this.#choose(offsetX, offsetY));
    new ResizeObserver(() => this.#resized()).observe(parent);
  }

  /** Marks a cell, and brings it into sight. */
  show(cell: number): void {
    this.#marked = cell;
    const [x, y] = [cell % this.#columns, Math.floor(cell / this.#columns)];
    const k = Math.max(this.#canvas.transform.k, 16 / this.#cell.width);
    const { width, height } = this.#cell;
    const to = zoomIdentity
      .translate(this.#width / 2 - k * (x + 0.5) * width, HEIGHT / 2 - k * (y + 0.5) * height)
      .scale(k);
    this.#canvas.moveTo(to);
    this.#canvas.says = this.#grid.says(cell);
    this.draw();
  }

  draw(): void {
    const paint = this.#canvas.paint();
    const palette = colours();
    const { x, y, k } = this.#canvas.transform;
    const [width, height] = [this.#cell.width * k, this.#cell.height * k];
    // Several cells of one pixel are looked at in steps.
    const [stepX, stepY] = [Math.max(1, Math.floor(1 / width)), Math.max(1, Math.floor(1 / height))];
    const firstX = Math.max(0, Math.floor(-x / width));
    const lastX = Math.min(this.#columns, Math.ceil((this.#width - x) / width));
    const lastY = Math.min(this.#rows, Math.ceil((HEIGHT - y) / height));
    const border = width >= BORDERED && height >= BORDERED ? 1 : 0;
    for (let row = Math.max(0, Math.floor(-y / height)); row < lastY; row += stepY) {
      for (let column = firstX; column < lastX; column += stepX) {
        const cell = row * this.#columns + column;
        if (cell >= this.#grid.count) break;
        paint.fillStyle = this.#grid.colour(cell, palette) ?? palette.ground;
        // Whole pixels, so that no seams are seen.
        const [left, top] = [Math.round(x + column * width), Math.round(y + row * height)];
        const right = Math.round(x + (column + stepX) * width) - border;
        const bottom = Math.round(y + (row + stepY) * height) - border;
        paint.fillRect(left, top, Math.max(right - left, 1), Math.max(bottom - top, 1));
      }
    }
    if (this.#marked === undefined) return;
    paint.strokeStyle = palette.mark;
    paint.lineWidth = 2;
    const [column, row] = [this.#marked % this.#columns, Math.floor(this.#marked / this.#columns)];
    paint.strokeRect(x + column * width - 1, y + row * height - 1, Math.max(width, 4) + 1, Math.max(height, 4) + 1);
  }

  /** Pixels of a cell when everything is in sight. */
  get #cell() {
    return { width: this.#width / this.#columns, height: HEIGHT / this.#rows };
  }

  #cellAt(offsetX: number, offsetY: number): number | undefined {
    const [x, y] = this.#canvas.transform.invert([offsetX, offsetY]);
    const cell = Math.floor(y / this.#cell.height) * this.#columns + Math.floor(x / this.#cell.width);
    return cell >= 0 && cell < this.#grid.count ? cell : undefined;
  }

  #choose(x: number, y: number): void {
    const cell = this.#cellAt(x, y);
    if (cell === undefined) return;
    this.#marked = cell;
    this.#canvas.says = this.#grid.says(cell);
    this.#grid.chosen(cell);
    this.draw();
  }

  get #width(): number {
    return this.#canvas.element.clientWidth;
  }

  #resized(): void {
    const closest = 24 / Math.min(this.#cell.width, this.#cell.height);
    this.#canvas.resize(HEIGHT, { width: this.#width, height: HEIGHT }, closest);
  }
}
