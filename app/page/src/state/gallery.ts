/** The gallery: pages of pictures that match what is searched for. */

import { effect, signal } from "@preact/signals";

import { api } from "../api";
import type { Picture } from "../types";
import { noteError } from "./ui";

export const pictures = signal<Picture[] | null>(null);
export const next = signal<string | null>(null);
export const search = signal("");
export const onlyFavourites = signal(false);
export const ofVerb = signal("");
/** Pictures that are picked to be compared, by id. */
export const picked = signal<string[]>([]);

const PAUSE = 250; // ms of rest in typing before the server is asked
let asked = 0;
let timer = 0;

function filters() {
  return { search: search.value.trim(), favourite: onlyFavourites.value ? (1 as const) : null, verb: ofVerb.value };
}

/** Asks anew. Answers to older questions are dropped. */
export async function refreshGallery(): Promise<void> {
  const turn = ++asked;
  try {
    const page = await api.gallery(filters());
    if (turn !== asked) return;
    pictures.value = page.pictures;
    next.value = page.next;
  } catch (error) {
    if (turn === asked && pictures.value !== null) noteError(error);
  }
}

export async function loadMore(): Promise<void> {
  const before = next.value;
  if (before === null) return;
  next.value = null; // so that scrolling on does not ask twice
  const turn = asked;
  try {
    const page = await api.gallery({ ...filters(), before });
    if (turn !== asked) return;
    pictures.value = [...(pictures.value ?? []), ...page.pictures];
    next.value = page.next;
  } catch (error) {
    next.value = before;
    noteError(error);
  }
}

/** Follows the filters from now on. */
export function watchFilters(): void {
  let isFirst = true;
  effect(() => {
    filters();
    clearTimeout(timer);
    if (!isFirst) timer = window.setTimeout(() => void refreshGallery(), PAUSE);
    isFirst = false;
  });
}

export function replacePicture(picture: Picture): void {
  pictures.value = (pictures.value ?? []).map((one) => (one.id === picture.id ? picture : one));
}

export function dropPicture(id: string): void {
  pictures.value = (pictures.value ?? []).filter((one) => one.id !== id);
  picked.value = picked.value.filter((one) => one !== id);
}

export function togglePicked(id: string): void {
  picked.value = picked.value.includes(id) ? picked.value.filter((one) => one !== id) : [...picked.value, id].slice(-4);
}
