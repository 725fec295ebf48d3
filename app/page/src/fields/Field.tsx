/** One field of a request as a control, chosen by what its schema says. */

import { useEffect, useRef } from "preact/hooks";

import { draft, fieldErrors, setField } from "../state/draft";
import { schema, verb } from "../state/models";
import { open } from "../state/ui";
import type { FieldSchema, Value } from "../types";
import { capital, fieldHint, fieldLabel } from "../words";
import { Segments } from "../parts/bits";
import { Icon } from "../parts/icons";
import { MaskField } from "./MaskField";
import { type InputProps, NumberField, NumbersField } from "./NumberField";
import { PictureWell } from "./PictureWell";
import { SeedField } from "./SeedField";

const FEW = 3; // choices that fit side by side
const LONG = 24; // letters of all choices together that still do

export function Field({ name }: { name: string }) {
  const field = schema.value?.properties[name];
  if (!field) return null;
  const id = `field-${name}`;
  const label = fieldLabel(name, verb.value);
  const error = fieldErrors.value[name];
  const hint = fieldHint(name, field);
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  const props: InputProps = {
    id, label, schema: field, described, isInvalid: Boolean(error),
    value: draft.value[name] ?? null,
    change: (value) => setField(name, value),
  };
  if (field.type === "boolean") return <Switch {...props} name={name} hint={hint} />;
  return (
    <div class="field" data-field={name} data-kind={kindOf(name, field)}>
      <label class="label" for={id}>{label}</label>
      <Control name={name} {...props} />
      {hint && <p class="hint" id={`${id}-hint`}>{hint}</p>}
      {error && <p class="error" id={`${id}-error`}>{error}</p>}
    </div>
  );
}

export function kindOf(name: string, field: FieldSchema): string {
  const format = field.format ?? field.items?.format;
  if (format) return field.type === "array" ? "pictures" : format;
  if (name === "seed") return "seed";
  if (field.type === "boolean") return "switch";
  if (field.enum) return "choice";
  if (field.type === "integer" || field.type === "number") return "number";
  if (name.startsWith("caption")) return "prompt";
  if (field.type !== "array") return "text";
  return field.items?.type === "string" ? "lines" : "numbers";
}

function Control(props: InputProps & { name: string }) {
  switch (kindOf(props.name, props.schema)) {
    case "picture":
      return <PictureWell {...props} picture={text(props.value) || null} />;
    case "pictures":
      return <PictureList {...props} />;
    case "mask":
      return <MaskField {...props} />;
    case "seed":
      return <SeedField {...props} />;
    case "number":
      return <NumberField {...props} />;
    case "numbers":
      return <NumbersField {...props} />;
    case "choice":
      return <Choice {...props} />;
    case "prompt":
    case "lines":
      return <Lines {...props} />;
    default:
      return <TextInput {...props} />;
  }
}

function text(value: Value): string {
  return typeof value === "string" ? value : "";
}

function TextInput({ id, value, change, described, isInvalid }: InputProps) {
  return (
    <input
      id={id}
      data-focus
      class="input"
      type="text"
      value={text(value)}
      aria-describedby={described}
      aria-invalid={isInvalid}
      onInput={(event) => change(event.currentTarget.value || null)}
    />
  );
}

/** Text that grows with what is typed; where several are allowed, a line each. */
function Lines({ id, schema: field, value, change, described, isInvalid }: InputProps) {
  const ref = useRef<HTMLTextAreaElement>(null);
  const isMany = field.type === "array";
  const shown = Array.isArray(value) ? value.join("\n") : text(value);
  useEffect(() => {
    const area = ref.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  }, [shown]);
  return (
    <textarea
      ref={ref}
      id={id}
      data-focus
      class="input prompt"
      rows={2}
      spellcheck={false}
      placeholder={isMany ? "What shall it draw? A line for each picture." : "What shall it show?"}
      value={shown}
      aria-describedby={described}
      aria-invalid={isInvalid}
      onInput={({ currentTarget: { value: typed } }) => change(isMany ? typed.split("\n") : typed)}
      onBlur={() => isMany && Array.isArray(value) && change(value.filter((line) => text(line).trim()))}
    />
  );
}

function Choice({ id, label, schema: field, value, change, described }: InputProps) {
  const options = field.enum ?? [];
  if (options.length <= FEW && options.join("").length <= LONG)
    return (
      <Segments
        label={label}
        value={String(value)}
        options={options.map((one) => [String(one), capital(String(one))])}
        choose={(chosen) => change(options.find((one) => String(one) === chosen) ?? null)}
      />
    );
  return (
    <select
      id={id}
      data-focus
      class="input"
      aria-describedby={described}
      onChange={(event) => change(options.find((one) => String(one) === event.currentTarget.value) ?? null)}
    >
      {value === null && <option value="" selected>Auto</option>}
      {options.map((one) => (
        <option key={one} value={one} selected={one === value}>{capital(String(one))}</option>
      ))}
    </select>
  );
}

function Switch({ id, label, name, hint, value, change, described }: InputProps & { name: string; hint: string }) {
  return (
    <div class="field" data-field={name} data-kind="switch">
      <label class="switch">
        <input
          id={id}
          data-focus
          type="checkbox"
          role="switch"
          checked={value === true}
          aria-describedby={described}
          onChange={(event) => change(event.currentTarget.checked)}
        />
        <span>{label}</span>
      </label>
      {hint && <p class="hint" id={`${id}-hint`}>{hint}</p>}
      {fieldErrors.value[name] && <p class="error" id={`${id}-error`}>{fieldErrors.value[name]}</p>}
    </div>
  );
}

function PictureList({ id, label, value, change, described }: InputProps) {
  const chosen = (Array.isArray(value) ? value : []).map(text).filter(Boolean);
  const pick = () =>
    open({ kind: "picker", title: `${label}: add a picture`, choose: (picture) => change([...chosen, picture]) });
  return (
    <div class="well-list">
      {chosen.map((picture, i) => (
        <PictureWell
          key={`${picture}-${i}`}
          id={`${id}-${i}`}
          label={`${label} ${i + 1}`}
          picture={picture}
          change={(other) => change(other ? chosen.with(i, other) : chosen.toSpliced(i, 1))}
        />
      ))}
      <button type="button" id={id} data-focus class="well-add" aria-describedby={described} onClick={pick}>
        <Icon name="plus" />
        <span>Add<span class="hidden"> to {label}</span></span>
      </button>
    </div>
  );
}
