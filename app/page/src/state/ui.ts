/** What the page itself shows: dialogs, notes, the connection, the theme, which pane of a narrow screen. */

import { computed, effect, signal } from "@preact/signals";

import type { StoredRequest, Upload } from "../types";
import { kept } from "./kept";

export type Dialog =
  | { kind: "viewer"; picture: string; among: string[] }
  | { kind: "compare"; pictures: string[] }
  | { kind: "picker"; title: string; choose: (picture: string) => void }
  | { kind: "dropped"; upload: Upload; stored: StoredRequest | null }
  | { kind: "grid" }
  | { kind: "help" }
  | { kind: "token" };

/** Dialogs lie on each other: closing one shows the one below. */
const stack = signal<Dialog[]>([]);
export const dialog = computed(() => stack.value.at(-1) ?? null);

export function open(next: Dialog): void {
  if (dialog.value?.kind === next.kind) stack.value = [...stack.value.slice(0, -1), next];
  else stack.value = [...stack.value, next];
}

export function close(): void {
  stack.value = stack.value.slice(0, -1);
}

export function closeAll(): void {
  stack.value = [];
}

export interface Note {
  id: number;
  text: string;
  isError: boolean;
  undo?: { label: string; run: () => void };
}

export const notes = signal<Note[]>([]);
let lastNote = 0;

export function note(text: string, isError = false, undo?: Note["undo"]): void {
  const id = ++lastNote;
  notes.value = [...notes.value.slice(-2), { id, text, isError, ...(undo ? { undo } : {}) }];
  setTimeout(() => dismiss(id), isError ? 10_000 : 5_000);
}

export function dismiss(id: number): void {
  notes.value = notes.value.filter((one) => one.id !== id);
}

export function noteError(error: unknown): void {
  note(error instanceof Error ? error.message : String(error), true);
}

/** Said by screen readers, not seen. */
export const announcement = signal("");

export function announce(text: string): void {
  announcement.value = text;
}

export type Connection = "connecting" | "open" | "lost";
export const connection = signal<Connection>("connecting");

export type Pane = "make" | "stage" | "gallery";
export const pane = signal<Pane>("make");

/** What the stage shows: what was drawn, the canvas that a mask is painted on, or a grid over settings. */
export const stageShows = signal<"job" | "canvas" | "plot">("job");

export const hasShortcuts = kept("shortcuts", true);

type Theme = "system" | "light" | "dark";
export const theme = kept<Theme>("theme", "system");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(prefersDark.matches);
prefersDark.addEventListener("change", (event) => (systemIsDark.value = event.matches));
export const isDark = computed(() => (theme.value === "system" ? systemIsDark.value : theme.value === "dark"));
effect(() => {
  document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
});

export function toggleTheme(): void {
  theme.value = isDark.value ? "light" : "dark";
}
