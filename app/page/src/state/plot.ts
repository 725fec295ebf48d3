/** Grids over two settings (X/Y plots): a job a cell, sent as the queue has room, shown together with shared axes. */

import { signal } from "@preact/signals";

import { ApiError, api } from "../api";
import { parentOf } from "../actions";
import type { FieldSchema, Value, Values } from "../types";
import { followUp, jobOf, takeJob } from "./jobs";
import { kept } from "./kept";
import { announce, noteError, pane, stageShows } from "./ui";

export interface Axis {
  field: string;
  values: Value[];
}

export interface Plot {
  id: string;
  model: string;
  verb: string;
  base: Values;
  x: Axis;
  y: Axis | null;
  /** The job of each cell, row by row; null where it is not sent yet. */
  cells: (string | null)[];
  /** Why cells could not be sent. */
  error: string;
  parent: string | null;
}

/** Kept with the tab, which alone sends the cells that wait. */
export const plots = kept<Plot[]>("plots", [], sessionStorage);
export const shownPlot = signal("");
const MOST_PLOTS = 12;
export const MOST_CELLS = 64;

export function rowsOf(plot: Plot): Value[] {
  return plot.y?.values ?? [null];
}

/** The request of one cell. */
function requestOf(plot: Plot, cell: number): Values {
  const columns = plot.x.values.length;
  const along: Values = { ...plot.base, [plot.x.field]: plot.x.values[cell % columns] ?? null };
  return plot.y ? { ...along, [plot.y.field]: plot.y.values[Math.floor(cell / columns)] ?? null } : along;
}

export function begin(model: string, verb: string, base: Values, x: Axis, y: Axis | null): void {
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const cells = Array<string | null>(x.values.length * (y?.values.length ?? 1)).fill(null);
  const plot: Plot = { id, model, verb, base, x, y, cells, error: "", parent: parentOf(base) };
  plots.value = [plot, ...plots.value].slice(0, MOST_PLOTS);
  show(id);
  announce(`A grid of ${cells.length} pictures is sent.`);
  void send(id);
}

export function show(id: string): void {
  shownPlot.value = id;
  stageShows.value = "plot";
  pane.value = "stage";
}

export function forget(id: string): void {
  plots.value = plots.value.filter((plot) => plot.id !== id);
  stageShows.value = "job";
}

/** Goes on with what was not sent before a refresh, and asks for jobs that are older than the list of jobs. */
export async function resume(): Promise<void> {
  for (const plot of plots.value) {
    for (const job of plot.cells) if (job && !jobOf(job)) await followUp(job);
    if (plot.cells.includes(null) && !plot.error) void send(plot.id);
  }
}

function update(id: string, change: (plot: Plot) => Partial<Plot>): void {
  plots.value = plots.value.map((plot) => (plot.id === id ? { ...plot, ...change(plot) } : plot));
}

const sending = new Set<string>();

async function send(id: string): Promise<void> {
  if (sending.has(id)) return;
  sending.add(id);
  await sendCells(id).finally(() => sending.delete(id));
}

/** Sends cell after cell; where the queue is full it waits as long as the server says. */
async function sendCells(id: string): Promise<void> {
  for (;;) {
    const plot = plots.value.find((one) => one.id === id);
    const cell = plot?.cells.indexOf(null) ?? -1;
    if (!plot || cell < 0) return;
    try {
      const { model, verb, parent } = plot;
      const job = await api.submit({ model, verb, request: requestOf(plot, cell), parent });
      takeJob(job);
      update(id, ({ cells }) => ({ cells: cells.with(cell, job.id) }));
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status !== 429 && error.status !== 0)) {
        update(id, () => ({ error: error instanceof Error ? error.message : String(error) }));
        return noteError(error);
      }
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? 3)));
    }
  }
}

/** The values that were typed for an axis: numbers with commas between, captions a line each. */
export function parseValues(text: string, field: FieldSchema): Value[] {
  const parts = text.split(isText(field) ? /\n/ : /[,;\s]+/).map((part) => part.trim()).filter(Boolean);
  if (field.type === "integer" || field.type === "number") return parts.map(Number).filter(Number.isFinite);
  return field.type === "array" ? parts.map((part) => [part]) : parts;
}

export function isText(field: FieldSchema): boolean {
  return field.type === "array" || (field.type === "string" && !field.enum);
}
