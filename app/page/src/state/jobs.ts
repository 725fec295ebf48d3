/** Jobs as the server tells them: asked for once at every connection, followed by events. The queue lives there, so a
refresh, a sleeping phone or a restart loses nothing. */

import { computed, signal } from "@preact/signals";

import { api } from "../api";
import { type Job, type Preview, UNFINISHED } from "../types";
import { plural, titleOf } from "../words";
import { refreshGallery } from "./gallery";
import { announce, note, noteError, stageShows } from "./ui";

const byId = signal<Record<string, Job>>({});
/** The newest preview of each job that is drawn now, as the URL of a sheet. */
export const previews = signal<Record<string, string>>({});
const shownId = signal("");

/** Newest first. */
export const jobs = computed(() => Object.values(byId.value).sort((a, b) => time(b.created) - time(a.created)));
export const unfinished = computed(() => jobs.value.filter(isUnfinished));
export const shownJob = computed(() => byId.value[shownId.value] ?? unfinished.value.at(-1) ?? jobs.value[0] ?? null);

export function isUnfinished(job: Job): boolean {
  return UNFINISHED.includes(job.state);
}

export function jobOf(id: string): Job | undefined {
  return byId.value[id];
}

export function showJob(id: string): void {
  shownId.value = id;
  stageShows.value = "job";
}

export async function loadJobs(): Promise<void> {
  const loaded = await api.jobs();
  // Jobs that were thought unfinished and are not among the newest have to be asked for one by one.
  const known = new Set(loaded.map((job) => job.id));
  const strays = unfinished.value.filter((job) => !known.has(job.id));
  loaded.forEach(takeJob);
  for (const stray of strays) await followUp(stray.id);
}

/** Asks for one job, as for a cell of a grid whose job is older than the list. */
export async function followUp(id: string): Promise<void> {
  try {
    takeJob(await api.job(id));
  } catch {
    const { [id]: _, ...rest } = byId.value;
    byId.value = rest; // it is gone with its pictures
  }
}

/** Takes in what the server says of a job, and tells the user of its end. */
export function takeJob(job: Job): void {
  const before = byId.value[job.id];
  byId.value = { ...byId.value, [job.id]: job };
  if (isUnfinished(job)) return;
  if (previews.value[job.id]) {
    const { [job.id]: _, ...rest } = previews.value;
    previews.value = rest;
  }
  if (before && isUnfinished(before)) tellEnd(job);
}

function tellEnd(job: Job): void {
  if (job.state === "done") announce(`${plural(job.pictures.length, "picture")} drawn: ${titleOf(job)}`);
  if (job.state === "cancelled") announce(`Cancelled: ${titleOf(job)}`);
  if (job.state === "failed") note(`${titleOf(job)}: ${job.error ?? "failed"}`, true);
  if (job.state === "done") void refreshGallery();
}

export function takePreview(preview: Preview): void {
  const job = byId.value[preview.job];
  if (job) byId.value = { ...byId.value, [job.id]: { ...job, step: preview.step, steps: preview.steps } };
  previews.value = { ...previews.value, [preview.job]: `data:image/png;base64,${preview.png}` };
}

export async function cancelJob(id: string): Promise<void> {
  try {
    takeJob(await api.cancel(id));
  } catch (error) {
    noteError(error);
  }
}

/** Pictures that were deleted are no longer shown with their jobs. */
export function forgetPicture(id: string): void {
  byId.value = Object.fromEntries(
    Object.entries(byId.value).map(([name, job]) => [
      name,
      job.pictures.includes(id) ? { ...job, pictures: job.pictures.filter((one) => one !== id) } : job,
    ]),
  );
}

export function time(when: number | string | null): number {
  return typeof when === "number" ? when * 1000 : Date.parse(when ?? "") || 0;
}
