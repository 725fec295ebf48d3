/** The line to the server: events while it holds, attempts to get it back when it does not. */

import { ApiError, api } from "../api";
import type { Job, Preview } from "../types";
import { refreshGallery } from "./gallery";
import { loadJobs, takeJob, takePreview } from "./jobs";
import { loadModels, models } from "./models";
import { resume } from "./plot";
import { connection, dialog, open } from "./ui";

const LONGEST_WAIT = 15_000;
const STALE = 30_000; // ms in the background after which a phone may have dropped the line without a word
let source: EventSource | null = null;
let wait = 500;
let timer = 0;
let hiddenAt = 0;

export function connect(): void {
  clearTimeout(timer);
  source?.close();
  const line = new EventSource("/api/events");
  source = line;
  line.onopen = () => void caughtUp();
  line.onerror = () => lost(line);
  line.addEventListener("job", (event) => takeJob(JSON.parse(event.data) as Job));
  line.addEventListener("preview", (event) => takePreview(JSON.parse(event.data) as Preview));
}

/** Events tell only what happens from now on: what was missed is asked for. */
async function caughtUp(): Promise<void> {
  try {
    if (!models.value) await loadModels();
    await Promise.all([loadJobs(), refreshGallery()]);
    connection.value = "open";
    wait = 500;
    void resume();
  } catch (error) {
    if (source) lost(source);
    askForToken(error);
  }
}

function lost(line: EventSource): void {
  if (line !== source) return;
  line.close();
  connection.value = "lost";
  clearTimeout(timer);
  timer = window.setTimeout(() => void retry(), wait);
  wait = Math.min(wait * 2, LONGEST_WAIT);
}

/** An EventSource does not say why it failed, so a plain request asks first whether the server wants a token. */
async function retry(): Promise<void> {
  try {
    await api.status();
    connect();
  } catch (error) {
    if (askForToken(error)) return;
    if (source) lost(source);
  }
}

function askForToken(error: unknown): boolean {
  const isRefused = error instanceof ApiError && error.status === 401;
  if (isRefused) clearTimeout(timer);
  if (isRefused && dialog.value?.kind !== "token") open({ kind: "token" });
  return isRefused;
}

export function watchConnection(): void {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = Date.now();
    else if (Date.now() - hiddenAt > STALE || connection.value === "lost") connect();
  });
  addEventListener("online", connect);
  addEventListener("pageshow", (event) => event.persisted && connect());
}
