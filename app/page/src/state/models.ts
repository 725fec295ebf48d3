/** Which models there are, which one is chosen, and what it can be asked. */

import { computed, signal } from "@preact/signals";

import { api } from "../api";
import type { Model, Values, Verbs } from "../types";
import { kept } from "./kept";

export const models = signal<Model[] | null>(null);
const chosen = kept("model", "");
const chosenVerb = kept("verb", "draw");
const verbsOf = signal<Record<string, Verbs>>({});

export const model = computed(
  () => models.value?.find((one) => one.name === chosen.value) ?? models.value?.[0] ?? null,
);
export const verbs = computed(() => (model.value ? (verbsOf.value[model.value.name] ?? null) : null));
/** The verbs of the chosen model in the order that the server lists them. */
export const verbNames = computed(() => (verbs.value ? Object.keys(verbs.value) : []));
export const verb = computed(() => {
  const names = verbNames.value;
  return names.includes(chosenVerb.value) ? chosenVerb.value : (names[0] ?? "");
});
export const schema = computed(() => verbs.value?.[verb.value]?.schema ?? null);
/** What the model is known to draw well, and examples of the verb where it has some of its own. */
export const examples = computed<Values[]>(() => {
  const own = verbs.value?.[verb.value]?.examples ?? [];
  const said = own.length ? own : (model.value?.examples ?? []);
  return said.map((one) => (typeof one === "string" ? captioned(one) : one));
});

/** A caption as the field that the chosen verb has for it. */
function captioned(text: string): Values {
  return "captions" in (schema.value?.properties ?? {}) ? { captions: [text] } : { caption: text };
}

export async function loadModels(): Promise<void> {
  models.value = await api.models();
  if (model.value) await loadVerbs(model.value.name);
}

async function loadVerbs(name: string): Promise<void> {
  if (!verbsOf.value[name]) {
    const loaded = await api.verbs(name);
    verbsOf.value = { ...verbsOf.value, [name]: loaded };
  }
}

export async function chooseModel(name: string): Promise<void> {
  await loadVerbs(name);
  chosen.value = name;
}

export function chooseVerb(name: string): void {
  chosenVerb.value = name;
}

/** The name of a verb's field that an input picture goes to; null if it takes none. */
export function pictureField(asked: string, which = 0): string | null {
  const fields = Object.entries(verbs.value?.[asked]?.schema.properties ?? {});
  const pictures = fields.filter(([, field]) => (field.format ?? field.items?.format) === "picture");
  return pictures[which]?.[0] ?? null;
}
