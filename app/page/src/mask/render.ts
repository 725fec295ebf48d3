/** Draws the canvas of the mask editor: the picture, what is marked, and the brush. */

import type { Point, Size, View } from "./view";

export interface Scene {
  picture: HTMLImageElement;
  size: Size;
  /** What is marked, in its colour; same size as the picture. */
  marked: HTMLCanvasElement;
  view: View;
  stage: Size;
  /** Pixels of the picture over which the new part fades into the old one. */
  feather: number;
  cursor: (Point & { radius: number }) | null;
}

const SMOOTH_BELOW = 3; // pixels of the page a pixel of the picture; larger ones are shown as what they are

export function render(canvas: HTMLCanvasElement, scene: Scene): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const dense = devicePixelRatio;
  const { view, stage, size } = scene;
  if (canvas.width !== Math.round(stage.width * dense) || canvas.height !== Math.round(stage.height * dense)) {
    canvas.width = Math.round(stage.width * dense);
    canvas.height = Math.round(stage.height * dense);
  }
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, stage.width, stage.height);
  context.imageSmoothingEnabled = view.scale < SMOOTH_BELOW;
  const place = [view.x, view.y, size.width * view.scale, size.height * view.scale] as const;
  context.drawImage(scene.picture, ...place);
  context.save();
  context.beginPath();
  context.rect(...place);
  context.clip();
  context.globalAlpha = 0.62;
  if (scene.feather > 0) context.filter = `blur(${(scene.feather * view.scale) / 2}px)`;
  context.drawImage(scene.marked, ...place);
  context.restore();
  if (scene.cursor) drawCursor(context, scene.cursor, view);
}

/** Two rings, one dark and one light, are seen on any picture. */
function drawCursor(context: CanvasRenderingContext2D, { x, y, radius }: Point & { radius: number }, view: View) {
  for (const [colour, width] of [["rgb(0 0 0 / 0.7)", 3.5], ["white", 1.5]] as const) {
    context.beginPath();
    context.arc(view.x + x * view.scale, view.y + y * view.scale, Math.max(2, radius * view.scale), 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}
