/** What verbs and fields are called on the page, and how requests read as a sentence. */

import type { FieldSchema, Value, Values } from "./types";

interface VerbWords {
  name: string;
  about: string;
  button: string;
  /** What its work is called where there is no caption. */
  work?: string;
}

const VERBS: Record<string, VerbWords> = {
  draw: { name: "Draw", about: "Say what you want to see.", button: "Draw" },
  sample: { name: "Sample", about: "Let the model draw what it knows.", button: "Draw" },
  vary: {
    name: "Vary",
    about: "New pictures that keep what matters in one you have.",
    button: "Draw variations",
    work: "Variations of a picture",
  },
  blend: {
    name: "Blend",
    about: "Pictures on the way from one to another.",
    button: "Blend",
    work: "From one picture to another",
  },
  edit: { name: "Text diff", about: "Move a picture by the difference of two captions.", button: "Draw the change" },
  inpaint: { name: "Inpaint", about: "Paint over what is to be drawn anew.", button: "Inpaint" },
  outpaint: { name: "Outpaint", about: "Go on beyond the edges of a picture.", button: "Draw beyond", work: "A wider picture" },
  upscale: { name: "Upscale", about: "Draw a small picture larger.", button: "Draw larger", work: "A larger picture" },
  interpolate: { name: "Interpolate", about: "Walk from picture to picture.", button: "Draw the walk", work: "A walk" },
  reconstruct: {
    name: "Reconstruct",
    about: "What the model keeps of a picture.",
    button: "Reconstruct",
    work: "Reconstructions",
  },
  project: { name: "Project", about: "Find a picture among those the model can draw.", button: "Project" },
};

export function verbWords(verb: string): VerbWords {
  return VERBS[verb] ?? { name: capital(verb), about: "", button: capital(verb) };
}

const LABELS: Record<string, string> = {
  captions: "Prompt",
  caption: "Prompt",
  caption_from: "From",
  caption_to: "To",
  num: "Pictures",
  image: "Picture",
  images: "Pictures",
  mask: "Mask",
  a: "First picture",
  b: "Last picture",
  prior_guidance: "Guidance of the prior",
  classifier_scale: "Strength of the classifier",
  beside_data: "Beside real examples",
  top_k: "Top k",
  top_p: "Top p",
  fps: "Pictures a second",
  set: "Overrides",
  lora: "LoRA",
};

export function fieldLabel(name: string, verb = ""): string {
  if (name === "num" && ["blend", "edit"].includes(verb)) return "Steps on the way";
  if (name === "num" && verb === "reconstruct") return "Examples";
  return LABELS[name] ?? capital(name.replaceAll("_", " "));
}

/** Fields whose label says it all: their help would only be noise. */
const PLAIN = new Set(["captions", "num", "seed", "mask", "image", "a", "b", "caption_from", "caption_to"]);

export function fieldHint(name: string, schema: FieldSchema): string {
  return PLAIN.has(name) ? "" : capital(schema.description ?? "");
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The captions of a request in one line; empty if it has none. */
export function captionOf(request: Values): string {
  const { caption_from: from, caption_to: to } = request;
  if (from || to) return `${from ?? ""} → ${to ?? ""}`;
  const said: Value = request.captions ?? request.caption ?? "";
  return Array.isArray(said) ? said.join(" · ") : String(said ?? "");
}

/** What a job or picture is called: its caption, or else its verb. */
export function titleOf(work: { verb: string; request: Values }): string {
  const { work: unnamed, name } = verbWords(work.verb);
  return captionOf(work.request) || (unnamed ?? name);
}

export function show(value: Value | undefined): string {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.map(show).join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object") return "a picture"; // what a saved request says of its input
  return String(value);
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
