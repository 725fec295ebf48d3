/** Files for the user: pictures, requests, sheets of several pictures. */

import { api, pictureUrl } from "./api";
import { newContext, pngOf } from "./mask/document";
import { noteError } from "./state/ui";
import type { Picture, StoredRequest } from "./types";
import { captionOf } from "./words";

function save(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1_000);
}

/** A file name that says what is in it. */
export function fileName(work: StoredRequest, index: number | null = null): string {
  const words = captionOf(work.request).toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
  return [words || work.verb, ...(index === null ? [] : [index + 1])].join("-");
}

export async function savePicture(picture: Picture): Promise<void> {
  try {
    save(await api.pictureBytes(picture.id), `${fileName(picture, picture.index)}.png`);
  } catch (error) {
    noteError(error);
  }
}

export function saveRequest(work: StoredRequest): void {
  const { model, verb, request } = work;
  const text = `${JSON.stringify({ model, verb, request }, null, 2)}\n`;
  save(new Blob([text], { type: "application/json" }), `${fileName(work)}.json`);
}

const GAP = 4;

/** The pictures of a job side by side in one. */
export async function saveSheet(ids: string[], columns: number, name: string): Promise<void> {
  try {
    const images = await Promise.all(ids.map(bitmapOf));
    const width = Math.max(...images.map((image) => image.width));
    const height = Math.max(...images.map((image) => image.height));
    const rows = Math.ceil(ids.length / columns);
    const context = newContext(columns * (width + GAP) - GAP, rows * (height + GAP) - GAP);
    context.fillStyle = "white";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    images.forEach((image, i) =>
      context.drawImage(image, (i % columns) * (width + GAP), Math.floor(i / columns) * (height + GAP)),
    );
    save(await pngOf(context.canvas), `${name}.png`);
  } catch (error) {
    noteError(error);
  }
}

async function bitmapOf(id: string): Promise<ImageBitmap> {
  const reply = await fetch(pictureUrl(id));
  return createImageBitmap(await reply.blob());
}
