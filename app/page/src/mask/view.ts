/** How a picture lies on the canvas: its scale and where its corner is, in pixels of the page. */

export interface View {
  scale: number;
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

export interface Point {
  x: number;
  y: number;
}

const MARGIN = 16;
const LEAST = 0.5; // of the scale at which the whole picture fits
const MOST = 24;

export function fit(picture: Size, stage: Size): View {
  const room = (side: number) => Math.max(1, side - 2 * MARGIN);
  const scale = Math.min(room(stage.width) / picture.width, room(stage.height) / picture.height);
  return {
    scale,
    x: (stage.width - picture.width * scale) / 2,
    y: (stage.height - picture.height * scale) / 2,
  };
}

/** The same point of the picture stays under `about`. */
export function zoom(view: View, by: number, about: Point, fitted: View): View {
  const scale = Math.min(fitted.scale * MOST, Math.max(fitted.scale * LEAST, view.scale * by));
  const share = scale / view.scale;
  return { scale, x: about.x - (about.x - view.x) * share, y: about.y - (about.y - view.y) * share };
}

export function pan(view: View, dx: number, dy: number): View {
  return { ...view, x: view.x + dx, y: view.y + dy };
}

export function toPicture(view: View, point: Point): Point {
  return { x: (point.x - view.x) / view.scale, y: (point.y - view.y) / view.scale };
}
