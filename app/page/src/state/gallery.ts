/** The gallery: pages of pictures that match what is searched for. */

import { computed, effect, signal } from "@preact/signals";

import { api } from "../api";
import type { Picture } from "../types";
import { kept } from "./kept";
import { noteError } from "./ui";

const found = signal<Picture[] | null>(null);
/** Masks are uploads as well; this browser knows its own, and requests name theirs. Nobody wants to see them. */
const ownMasks = kept<string[]>("masks", []);
const MOST_MASKS = 1_000;
export const pictures = computed(() => {
  const masks = new Set<unknown>([...ownMasks.value, ...(found.value ?? []).map((picture) => picture.request.mask)]);
  return found.value?.filter((picture) => !masks.has(picture.id)) ?? null;
});
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
    found.value = page.pictures;
    next.value = page.next;
  } catch (error) {
    if (turn === asked && found.value !== null) noteError(error);
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
    found.value = [...(found.value ?? []), ...page.pictures];
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
  found.value = (found.value ?? []).map((one) => (one.id === picture.id ? picture : one));
}

export function dropPicture(id: string): void {
  found.value = (found.value ?? []).filter((one) => one.id !== id);
  picked.value = picked.value.filter((one) => one !== id);
}

export function togglePicked(id: string): void {
  picked.value = picked.value.includes(id) ? picked.value.filter((one) => one !== id) : [...picked.value, id].slice(-4);
}

export function hideMask(id: string): void {
  ownMasks.value = [...ownMasks.value, id].slice(-MOST_MASKS);
}
