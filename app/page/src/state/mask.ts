/** The mask that is being painted, its tools, and its way to the server. */

import { effect, signal } from "@preact/signals";

import { api, pictureUrl } from "../api";
import { MaskDocument, maskPng, newContext, pngOf, readMask } from "../mask/document";
import { draft, setField } from "./draft";
import { hideMask } from "./gallery";
import { kept } from "./kept";
import { schema } from "./models";
import { noteError, stageShows } from "./ui";

export type Tool = "brush" | "eraser" | "pan";

export const mask = signal<MaskDocument | null>(null);
/** The picture under the mask, once it is loaded. */
export const ground = signal<HTMLImageElement | null>(null);
/** Counts changes of the mask, so that what shows it follows. */
export const version = signal(0);
export const tool = signal<Tool>("brush");
/** Of the brush, as a share of the picture's shorter side. */
export const brush = kept("brush", 0.14);

let uploaded: { version: number; id: string } | null = null;
let wanted = "";

/** The field that a mask goes to, where the verb has one. */
export function maskField(): string | null {
  const found = Object.entries(schema.value?.properties ?? {}).find(([, field]) => field.format === "mask");
  return found?.[0] ?? null;
}

export function changed(): void {
  version.value++;
}

/** A fresh mask whenever another picture is chosen; one that was drawn with before where the draft names it. */
export function watchMask(): void {
  effect(() => {
    const field = maskField();
    const picture = field === null ? "" : String(draft.value.image ?? "");
    if (!field || !picture) {
      if (field) wanted = "";
      if (field) mask.value = null;
      return;
    }
    const earlier = String(draft.value[field] ?? "");
    if (picture !== wanted) void openMask(picture, earlier);
  });
}

async function openMask(picture: string, earlier: string): Promise<void> {
  wanted = picture;
  mask.value = null;
  try {
    const image = await loadImage(pictureUrl(picture));
    if (wanted !== picture) return;
    const fresh = new MaskDocument(picture, image.naturalWidth, image.naturalHeight);
    ground.value = image;
    if (earlier) await loadImage(pictureUrl(earlier)).then((old) => readMask(fresh, old)).catch(() => undefined);
    mask.value = fresh;
    changed();
    uploaded = earlier ? { version: version.value, id: earlier } : null;
  } catch (error) {
    noteError(error);
  }
}

/** Shows the mask of a request that is to be drawn again. */
export function reopenMask(): void {
  wanted = "";
}

/** The mask's id at the server; sent anew only if it has changed. */
export async function uploadMask(document: MaskDocument): Promise<string> {
  if (uploaded?.version !== version.value) {
    const { id } = await api.upload(await maskPng(document));
    uploaded = { version: version.value, id };
    hideMask(id);
    const field = maskField();
    if (field) setField(field, id);
  }
  return uploaded.id;
}

/** A picture with room on all sides, which is what is marked: drawing that extends the picture. */
export async function extend(share: number): Promise<void> {
  const [old, image] = [mask.value, ground.value];
  if (!old || !image) return;
  const border = Math.max(1, Math.round(Math.min(old.width, old.height) * share));
  const [width, height] = [old.width + 2 * border, old.height + 2 * border];
  const context = newContext(width, height);
  context.drawImage(image, 0, 0, width, height); // its own colours, enlarged, as a hint of what lies beyond
  context.drawImage(image, border, border);
  try {
    const { id } = await api.upload(await pngOf(context.canvas));
    wanted = id;
    const fresh = new MaskDocument(id, width, height);
    fresh.fill((_, x, y) => (x < border || y < border || x >= width - border || y >= height - border ? 255 : 0));
    ground.value = await loadImage(pictureUrl(id));
    mask.value = fresh;
    changed();
    setField("image", id);
    stageShows.value = "canvas";
  } catch (error) {
    noteError(error);
  }
}

function loadImage(url: string): Promise<HTMLImageElement> {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("the picture could not be loaded"));
    image.src = url;
  });
}
