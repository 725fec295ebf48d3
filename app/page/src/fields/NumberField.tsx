/** Fields that hold a number: a slider where both ends are known, steps up and down elsewhere. */

import { useState } from "preact/hooks";

import type { FieldSchema, Value } from "../types";
import { IconButton } from "../parts/bits";

export interface InputProps {
  id: string;
  label: string;
  schema: FieldSchema;
  value: Value;
  change: (value: Value) => void;
  described: string | undefined;
  isInvalid: boolean;
}

const WIDE = 10; // a slider over more than this is too coarse
const FINE = 100; // steps of a slider over a range of numbers

function parse(text: string): Value {
  return text.trim() === "" || !Number.isFinite(Number(text)) ? null : Number(text);
}

function least(schema: FieldSchema): number | undefined {
  return schema.minimum ?? schema.exclusiveMinimum;
}

export function NumberField(props: InputProps) {
  const { schema } = props;
  if (schema.type === "integer") return <StepperField {...props} />;
  const range = (schema.maximum ?? Infinity) - (least(schema) ?? -Infinity);
  return range <= WIDE ? <SliderField {...props} /> : <PlainNumber {...props} />;
}

function PlainNumber({ id, schema, value, change, described, isInvalid }: InputProps) {
  return (
    <input
      id={id}
      data-focus
      class="input number"
      type="number"
      inputMode={schema.type === "integer" ? "numeric" : "decimal"}
      min={schema.minimum}
      max={schema.maximum}
      step={schema.type === "integer" ? 1 : "any"}
      placeholder="auto"
      value={value === null ? "" : String(value)}
      aria-describedby={described}
      aria-invalid={isInvalid}
      onInput={(event) => change(parse(event.currentTarget.value))}
    />
  );
}

function StepperField(props: InputProps) {
  const { label, schema, value, change } = props;
  const now = typeof value === "number" ? value : null;
  const step = (by: number) => {
    const moved = now === null ? (least(schema) ?? 1) : now + by;
    change(Math.min(schema.maximum ?? Infinity, Math.max(least(schema) ?? -Infinity, moved)));
  };
  return (
    <div class="stepper">
      <IconButton icon="minus" label={`${label}: fewer`} onClick={() => step(-1)} isDisabled={now === least(schema)} />
      <PlainNumber {...props} />
      <IconButton icon="plus" label={`${label}: more`} onClick={() => step(1)} />
    </div>
  );
}

function SliderField(props: InputProps) {
  const { id, label, schema, value, change, described, isInvalid } = props;
  const from = least(schema) ?? 0;
  const to = schema.maximum ?? 1;
  const step = (to - from) / FINE;
  const start = schema.minimum === undefined ? from + step : from; // an end that is not allowed itself
  const usual = Number.parseFloat(schema["x-default"] ?? ""); // what the model takes by itself, if that is a number
  const shown = typeof value === "number" ? value : Number.isNaN(usual) ? start : usual;
  const fill = `${(100 * (shown - start)) / (to - start)}%`;
  return (
    <div class="slider-field">
      <input
        type="range"
        id={id}
        data-focus
        style={{ "--fill": fill }}
        min={start}
        max={to}
        step={step}
        value={shown}
        aria-describedby={described}
        aria-invalid={isInvalid}
        onInput={(event) => change(Number(Number(event.currentTarget.value).toFixed(4)))}
      />
      <input
        class="input number"
        type="number"
        aria-label={`${label}, as a number`}
        min={schema.minimum}
        max={to}
        step="any"
        placeholder="auto"
        value={value === null ? "" : String(value)}
        onInput={(event) => change(parse(event.currentTarget.value))}
      />
    </div>
  );
}

/** Several numbers, with commas between; the text stays as it is typed. */
export function NumbersField({ id, value, change, described, isInvalid }: InputProps) {
  const [text, setText] = useState(Array.isArray(value) ? value.join(", ") : "");
  return (
    <input
      id={id}
      data-focus
      class="input"
      type="text"
      inputMode="numeric"
      placeholder="1, 2, 3"
      value={text}
      aria-describedby={described}
      aria-invalid={isInvalid}
      onInput={({ currentTarget: { value: typed } }) => {
        setText(typed);
        change(typed.split(/[,;\s]+/).filter(Boolean).map(Number).filter(Number.isFinite));
      }}
    />
  );
}
