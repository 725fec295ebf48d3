/** What is being asked for: the values of the form, and what the server found wrong with them. */

import { computed, signal } from "@preact/signals";

import type { Value, Values, VerbSchema } from "../types";
import { kept } from "./kept";
import { model, schema, verb } from "./models";

/** By verb; captions, pictures and seeds that a verb lacks are taken from what was said last under the same name. */
const drafts = kept<Record<string, Values>>("drafts", {});
const shared = kept<Values>("shared", {});
const SHARED = new Set(["captions", "caption", "image", "a", "b", "seed"]);

/** Whether every drawing has a seed of its own; otherwise the same request gives the same pictures. */
export const hasNewSeeds = kept("new-seeds", true);

export const fieldErrors = signal<Record<string, string>>({});
export const formError = signal("");

const key = computed(() => `${model.value?.name}/${verb.value}`);

/** The form's values: what was typed, else what is shared between verbs, else the schema's default. */
export const draft = computed<Values>(() => {
  const own = drafts.value[key.value] ?? {};
  const fields = schema.value?.properties ?? {};
  return Object.fromEntries(
    Object.entries(fields).map(([name, field]) => {
      const said = own[name] ?? (SHARED.has(name) ? shared.value[name] : undefined);
      return [name, said ?? (name in own ? null : (field.default ?? null))]; // what was emptied stays empty
    }),
  );
});

export function setField(name: string, value: Value): void {
  const own = drafts.value[key.value] ?? {};
  // A mask belongs to one picture.
  const stale = schema.value?.properties[name]?.format === "picture" && "mask" in own ? { mask: null } : {};
  drafts.value = { ...drafts.value, [key.value]: { ...own, ...stale, [name]: value } };
  if (SHARED.has(name)) shared.value = { ...shared.value, [name]: value };
  if (fieldErrors.value[name]) {
    const { [name]: _, ...rest } = fieldErrors.value;
    fieldErrors.value = rest;
  }
  formError.value = "";
}

/** Takes over a whole request, as when a picture is drawn again. */
export function setDraft(values: Values): void {
  const fields = schema.value?.properties ?? {};
  const known = Object.fromEntries(Object.entries(values).filter(([name]) => name in fields));
  drafts.value = { ...drafts.value, [key.value]: known };
  if ("seed" in known) hasNewSeeds.value = false;
  clearErrors();
}

/** Back to the model's own settings; captions and pictures stay. */
export function resetSettings(): void {
  const own = drafts.value[key.value] ?? {};
  const stays = Object.entries(own).filter(([name]) => isInput(name));
  drafts.value = { ...drafts.value, [key.value]: Object.fromEntries(stays) };
  clearErrors();
}

export function clearErrors(): void {
  fieldErrors.value = {};
  formError.value = "";
}

function isInput(name: string): boolean {
  const field = schema.value?.properties[name];
  return Boolean(field?.format ?? field?.items?.format) || name.startsWith("caption");
}

/** The values to send: what is empty is left to the model. */
export function request(values: Values, of: VerbSchema): Values {
  const said = Object.entries(values).map(([name, value]) => [name, withoutBlanks(value)] as const);
  const filled = said.filter(([name, value]) => {
    if (value === null || value === "") return of.properties[name]?.default === value;
    return !(Array.isArray(value) && value.length === 0);
  });
  return Object.fromEntries(filled);
}

function withoutBlanks(value: Value): Value {
  return Array.isArray(value) ? value.filter((one) => typeof one !== "string" || one.trim() !== "") : value;
}

/** What is missing, by field; empty where the request can be sent. */
export function lacking(values: Values, of: VerbSchema): Record<string, string> {
  const missing: Record<string, string> = {};
  for (const [name, field] of Object.entries(of.properties)) {
    const value = withoutBlanks(values[name] ?? null);
    const isEmpty = value === null || value === "" || (Array.isArray(value) && !value.length);
    const isNeeded = of.required.includes(name) || name === "caption_from" || name === "caption_to";
    if (!isEmpty || !isNeeded || field.format === "mask") continue;
    missing[name] = (field.format ?? field.items?.format) ? "Choose a picture." : "Say what it shall show.";
  }
  return missing;
}

export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
