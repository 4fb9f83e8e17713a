import { select } from 'd3-selection';
import type { ZoomBehavior, ZoomTransform } from 'd3-zoom';

const STEP = 60;

/** A map by keyboard: arrows move, + and - zoom, 0 shows all, Enter chooses. */
export function keyboard(
  canvas: HTMLCanvasElement,
  zoom: ZoomBehavior<HTMLCanvasElement, unknown>,
  choose: () => void,
): void {
  const on = select(canvas);
  const keys: Readonly<Record<string, () => void>> = {
    ArrowLeft: () => move(STEP, 0),
    ArrowRight: () => move(-STEP, 0),
    ArrowUp: () => move(0, STEP),
    ArrowDown: () => move(0, -STEP),
    '+': () => on.call(zoom.scaleBy, 2),
    '=': () => on.call(zoom.scaleBy, 2),
    '-': () => on.call(zoom.scaleBy, 0.5),
    '0': () => on.call(zoom.scaleTo, 1),
    Enter: choose,
  };
  /** In pixels of the screen. */
  function move(x: number, y: number): void {
    const { k } = (canvas as unknown as { __zoom: { k: number } }).__zoom;
    on.call(zoom.translateBy, x / k, y / k);
  }
  canvas.addEventListener('keydown', (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
}

/** Moves a map so that all of its area stays filled. */
export function moveTo(
  canvas: HTMLCanvasElement,
  zoom: ZoomBehavior<HTMLCanvasElement, unknown>,
  to: ZoomTransform,
): void {
  const extent = (zoom.extent() as (this: HTMLCanvasElement) => [[number, number], [number, number]]).call(canvas);
  select(canvas).call(zoom.transform, zoom.constrain()(to, extent, zoom.translateExtent()));
}
