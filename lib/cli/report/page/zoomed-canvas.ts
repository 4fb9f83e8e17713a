import { select } from 'd3-selection';
import { type ZoomTransform, zoom, zoomTransform } from 'd3-zoom';

const STEP = 60;

/** A picture that is moved and zoomed by mouse and keyboard, with a line below it that says what is there. */
export class ZoomedCanvas {
  readonly element: HTMLCanvasElement;
  readonly #says: HTMLElement;
  readonly #zoom = zoom<HTMLCanvasElement, unknown>();
  readonly #draw: () => void;

  /**
   * @param draw called whenever it looks otherwise
   * @param choose by Enter: what is in the middle
   */
  constructor(parent: HTMLElement, label: string, draw: () => void, choose: () => void) {
    parent.innerHTML = '<canvas tabindex="0" role="img"></canvas><p class="says" aria-live="polite"></p>';
    this.element = parent.querySelector('canvas')!;
    this.element.setAttribute(
      'aria-label',
      `${label}. Arrows move, plus and minus zoom, 0 shows all, Enter chooses the middle.`,
    );
    this.#says = parent.querySelector('.says')!;
    this.#draw = draw;
    this.#zoom.on('zoom', draw);
    select(this.element).call(this.#zoom).on('dblclick.zoom', null);
    this.#listen(choose);
  }

  get transform(): ZoomTransform {
    return zoomTransform(this.element);
  }

  /** What is said below. */
  set says(text: string) {
    this.#says.textContent = text;
  }

  /** Gives it a height, and says how much of it can be moved and how close one can get. */
  resize(height: number, area: { readonly width: number; readonly height: number }, closest: number): void {
    const { element } = this;
    element.style.height = `${height}px`;
    element.width = element.clientWidth * devicePixelRatio;
    element.height = height * devicePixelRatio;
    const everything: [[number, number], [number, number]] = [
      [0, 0],
      [area.width, area.height],
    ];
    this.#zoom
      .scaleExtent([1, Math.max(1, closest)])
      .extent(everything)
      .translateExtent(everything);
    this.#draw();
  }

  /** Moves so that all of the area stays filled. */
  moveTo(to: ZoomTransform): void {
    const area = this.#zoom.translateExtent();
    select(this.element).call(this.#zoom.transform, this.#zoom.constrain()(to, area, area));
  }

  /** An empty picture, to be drawn in pixels of the style sheet. */
  paint(): CanvasRenderingContext2D {
    const paint = this.element.getContext('2d')!;
    paint.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    paint.clearRect(0, 0, this.element.width, this.element.height);
    return paint;
  }

  #listen(choose: () => void): void {
    const on = select(this.element);
    const keys: Readonly<Record<string, () => void>> = {
      ArrowLeft: () => this.#move(STEP, 0),
      ArrowRight: () => this.#move(-STEP, 0),
      ArrowUp: () => this.#move(0, STEP),
      ArrowDown: () => this.#move(0, -STEP),
      '+': () => on.call(this.#zoom.scaleBy, 2),
      '=': () => on.call(this.#zoom.scaleBy, 2),
      '-': () => on.call(this.#zoom.scaleBy, 0.5),
      '0': () => on.call(this.#zoom.scaleTo, 1),
      Enter: choose,
    };
    this.element.addEventListener('keydown', (event) => {
      const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
      if (act === undefined) return;
      event.preventDefault();
      act();
    });
  }

  /** By pixels of the screen. */
  #move(x: number, y: number): void {
    const { k } = this.transform;
    select(this.element).call(this.#zoom.translateBy, x / k, y / k);
  }
}
