/** Sets up a grid over two settings: which, and their values. */

import { useState } from "preact/hooks";

import { draft, hasNewSeeds, lacking, randomSeed, request, fieldErrors } from "../state/draft";
import { model, schema, verb } from "../state/models";
import { begin, isText, MOST_CELLS, parseValues } from "../state/plot";
import { announce, close } from "../state/ui";
import type { FieldSchema, Value, VerbSchema } from "../types";
import { capital, fieldLabel, plural, show } from "../words";
import { Modal } from "./bits";

interface AxisText {
  field: string;
  text: string;
}

/** Settings that can vary along an axis: anything but pictures, and how many there are. */
function axes(of: VerbSchema): string[] {
  return Object.entries(of.properties)
    .filter(
      ([name, field]) =>
        !field.format && (field.items?.type ?? "string") === "string" && !field.items?.format && name !== "num",
    )
    .map(([name]) => name);
}

function suggestion(name: string, field: FieldSchema | undefined): string {
  if (!field) return "";
  const now = draft.value[name];
  if (field.enum) return field.enum.join(", ");
  if (field.type === "boolean") return "no, yes";
  if (isText(field)) return Array.isArray(now) ? now.map(show).join("\n") : typeof now === "string" ? now : "";
  if (name === "seed") return "1, 2, 3, 4";
  if (name === "guidance" || name === "prior_guidance") return "1, 2, 4, 8";
  if (name === "steps") return "5, 10, 25, 50";
  if (field.maximum !== undefined && field.type === "number")
    return [0.25, 0.5, 0.75, 1].map((s) => s * field.maximum!).join(", ");
  return "1, 2, 4";
}

function valuesOf(axis: AxisText, field: FieldSchema | undefined): Value[] {
  if (!field) return [];
  const words = axis.text.split(/[,\s]+/).filter(Boolean);
  return field.type === "boolean"
    ? words.map((word) => /^(yes|true|on|1)$/i.test(word))
    : parseValues(axis.text, field);
}

export function PlotDialog() {
  const of = schema.value;
  const names = of ? axes(of) : [];
  const start = (name: string): AxisText => ({ field: name, text: suggestion(name, of?.properties[name]) });
  const [x, setX] = useState(() => start(names.find((name) => name === "guidance") ?? names[0] ?? ""));
  const [y, setY] = useState(() => start(names.includes("seed") ? "seed" : ""));
  if (!of) return null;
  const xs = valuesOf(x, of.properties[x.field]);
  const ys = valuesOf(y, of.properties[y.field]);
  const count = xs.length * (y.field ? ys.length : 1);
  const others = (taken: string) => names.filter((name) => name !== taken);
  return (
    <Modal title="A grid over two settings">
      <p class="hint">Everything else is as in the form. All pictures share a seed, unless it is one of the two.</p>
      <div class="axes">
        <AxisFields label="Across" axis={x} names={others(y.field)} of={of} set={setX} start={start} />
        <AxisFields label="Down" axis={y} names={["", ...others(x.field)]} of={of} set={setY} start={start} />
      </div>
      <div class="modal-foot">
        <span class="hint">
          {plural(count, "picture")}
          {count > MOST_CELLS && `, at most ${MOST_CELLS}`}
        </span>
        <button
          type="button"
          class="button primary"
          disabled={count < 1 || count > MOST_CELLS}
          onClick={() => send(of, { field: x.field, values: xs }, y.field ? { field: y.field, values: ys } : null)}
        >
          Draw the grid
        </button>
      </div>
    </Modal>
  );
}

interface AxisProps {
  label: string;
  axis: AxisText;
  names: string[];
  of: VerbSchema;
  set: (axis: AxisText) => void;
  start: (name: string) => AxisText;
}

function AxisFields({ label, axis, names, of, set, start }: AxisProps) {
  const field = of.properties[axis.field];
  const id = `axis-${label}`;
  return (
    <fieldset>
      <legend>{label}</legend>
      <label class="label" for={id}>
        Setting
      </label>
      <select id={id} class="input" value={axis.field} onChange={(event) => set(start(event.currentTarget.value))}>
        {names.map((name) => (
          <option key={name} value={name}>
            {name ? capital(fieldLabel(name, verb.value)) : "none"}
          </option>
        ))}
      </select>
      {field && (
        <>
          <label class="label" for={`${id}-values`}>
            {isText(field) ? "Values, a line each" : "Values, commas between"}
          </label>
          <textarea
            id={`${id}-values`}
            class="input"
            rows={isText(field) ? 4 : 2}
            value={axis.text}
            onInput={(event) => set({ ...axis, text: event.currentTarget.value })}
          />
        </>
      )}
    </fieldset>
  );
}

type Chosen = { field: string; values: Value[] };

/** A picture a cell, and one seed for all of them. */
function send(of: VerbSchema, x: Chosen, y: Chosen | null): void {
  const seed = hasNewSeeds.value ? randomSeed() : (draft.value.seed ?? 0);
  const one = "num" in of.properties ? { num: 1 } : {};
  const along = { [x.field]: x.values[0] ?? null, ...(y ? { [y.field]: y.values[0] ?? null } : {}) };
  const missing = lacking({ ...draft.value, ...along }, of);
  if (Object.keys(missing).length) {
    fieldErrors.value = missing;
    announce("The form lacks something.");
    return close();
  }
  close();
  begin(model.value?.name ?? "", verb.value, { ...request(draft.value, of), seed, ...one }, x, y);
}
