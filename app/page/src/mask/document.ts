/** A mask as it is painted: one byte a pixel of its picture, 255 where it is to be drawn anew; with undo and redo. */

const MOST_UNDO = 32_000_000; // bytes

export interface Spot {
  x: number;
  y: number;
  radius: number;
}

export class MaskDocument {
  readonly data: Uint8Array;
  private undone: Uint8Array[] = [];
  private done: Uint8Array[] = [];

  constructor(
    readonly picture: string,
    readonly width: number,
    readonly height: number,
  ) {
    this.data = new Uint8Array(width * height);
  }

  /** Remembers how it is now, so that what follows can be undone. */
  begin(): void {
    this.done.push(this.data.slice());
    while (this.done.length * this.data.length > MOST_UNDO) this.done.shift();
    this.undone = [];
  }

  /** Marks (or unmarks) all pixels within a brush that moves from one spot to another. */
  stroke(from: Spot, to: Spot, isMarked: boolean): void {
    const reach = Math.max(from.radius, to.radius);
    const value = isMarked ? 255 : 0;
    const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - reach));
    const bottom = Math.min(this.height - 1, Math.ceil(Math.max(from.y, to.y) + reach));
    const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - reach));
    const right = Math.min(this.width - 1, Math.ceil(Math.max(from.x, to.x) + reach));
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++)
        if (isWithin(x + 0.5, y + 0.5, from, to)) this.data[y * this.width + x] = value;
  }

  fill(value: (old: number, x: number, y: number) => number): void {
    this.begin();
    for (let i = 0; i < this.data.length; i++)
      this.data[i] = value(this.data[i] ?? 0, i % this.width, Math.floor(i / this.width));
  }

  clear(): void {
    this.fill(() => 0);
  }

  invert(): void {
    this.fill((old) => 255 - old);
  }

  undo(): boolean {
    return this.restore(this.done, this.undone);
  }

  redo(): boolean {
    return this.restore(this.undone, this.done);
  }

  get canUndo(): boolean {
    return this.done.length > 0;
  }

  get canRedo(): boolean {
    return this.undone.length > 0;
  }

  get isEmpty(): boolean {
    return !this.data.some((value) => value > 0);
  }

  private restore(from: Uint8Array[], to: Uint8Array[]): boolean {
    const state = from.pop();
    if (!state) return false;
    to.push(this.data.slice());
    this.data.set(state);
    return true;
  }
}

/** Whether a point is inside the shape that a round brush covers on its way, its radius changing evenly. */
function isWithin(x: number, y: number, from: Spot, to: Spot): boolean {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = dx * dx + dy * dy;
  const share = length ? Math.min(1, Math.max(0, ((x - from.x) * dx + (y - from.y) * dy) / length)) : 0;
  const radius = from.radius + share * (to.radius - from.radius);
  return (x - from.x - share * dx) ** 2 + (y - from.y - share * dy) ** 2 <= radius * radius;
}

/** The mask in a colour, transparent where nothing is marked. */
export function paintMask(mask: MaskDocument, rgb: [number, number, number]): HTMLCanvasElement {
  const image = new ImageData(mask.width, mask.height);
  mask.data.forEach((value, i) => image.data.set([...rgb, value], 4 * i));
  return canvasOf(image);
}

/** White where it is to be drawn anew, black elsewhere. */
export function maskPng(mask: MaskDocument): Promise<Blob> {
  const image = new ImageData(mask.width, mask.height);
  mask.data.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  return pngOf(canvasOf(image));
}

/** Takes over a mask that was drawn with before. */
export function readMask(mask: MaskDocument, image: CanvasImageSource): void {
  const context = newContext(mask.width, mask.height);
  context.drawImage(image, 0, 0, mask.width, mask.height);
  const { data } = context.getImageData(0, 0, mask.width, mask.height);
  for (let i = 0; i < mask.data.length; i++) mask.data[i] = (data[4 * i] ?? 0) > 127 ? 255 : 0;
}

export function newContext(width: number, height: number): CanvasRenderingContext2D {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser gives no canvas to paint on");
  return context;
}

function canvasOf(image: ImageData): HTMLCanvasElement {
  const context = newContext(image.width, image.height);
  context.putImageData(image, 0, 0);
  return context.canvas;
}

export function pngOf(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((resolve, reject) =>
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("the picture could not be written"))),
      "image/png",
    ),
  );
}
