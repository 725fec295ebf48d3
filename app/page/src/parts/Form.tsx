/** The form of the chosen verb: what matters in view, the rest one click away. */

import { Fragment } from "preact";

import { draw } from "../actions";
import { Field, kindOf } from "../fields/Field";
import { draft, fieldErrors, formError, resetSettings, setField } from "../state/draft";
import { chooseModel, examples, model, models, schema, verb } from "../state/models";
import { kept } from "../state/kept";
import { connection, noteError, open } from "../state/ui";
import type { FieldSchema, Values, VerbSchema } from "../types";
import { captionOf, verbWords } from "../words";
import { Icon } from "./icons";
import { IconButton, Keys } from "./bits";
import { VerbTabs } from "./VerbTabs";

/** What is open where the schema itself does not say it. */
const MAIN = new Set(["num", "seed", "strength", "frames", "guidance"]);
/** In this order: what it starts from, what is said, how much of it. */
const ORDER = [
  "picture",
  "pictures",
  "mask",
  "prompt",
  "text",
  "lines",
  "choice",
  "numbers",
  "number",
  "switch",
  "seed",
];
const isOpen = kept("more", false);

function isAdvanced(name: string, field: FieldSchema, of: VerbSchema): boolean {
  if (of.required.includes(name) || name.startsWith("caption")) return false;
  return field["x-advanced"] ?? !(MAIN.has(name) || field.format || field.items?.format);
}

/** Main fields and the others, each in the order that they are filled in. */
function parted(of: VerbSchema): [string[], string[]] {
  const rank = ([name, field]: [string, FieldSchema]) => ORDER.indexOf(kindOf(name, field));
  const fields = Object.entries(of.properties).sort((a, b) => rank(a) - rank(b));
  const pick = (advanced: boolean) =>
    fields.filter(([name, field]) => isAdvanced(name, field, of) === advanced).map(([name]) => name);
  return [pick(false), pick(true)];
}

export function MakePanel() {
  const of = schema.value;
  return (
    <section class="panel make" aria-label="What to draw">
      <ModelChooser />
      <VerbTabs />
      <div id="form" class="tab-panel" role="tabpanel" aria-labelledby={`tab-${verb.value}`}>
        {of && <Form of={of} key={`${model.value?.name}/${verb.value}`} />}
      </div>
    </section>
  );
}

function ModelChooser() {
  const all = models.value ?? [];
  return (
    <div class="model">
      <label class="hidden" for="model">
        Model
      </label>
      <select id="model" class="input" onChange={(event) => chooseModel(event.currentTarget.value).catch(noteError)}>
        {all.map(({ name }) => (
          <option key={name} value={name} selected={name === model.value?.name}>
            {name}
          </option>
        ))}
      </select>
      <p class="hint">{model.value?.description}</p>
    </div>
  );
}

function Form({ of }: { of: VerbSchema }) {
  const [main, others] = parted(of);
  const lastCaption = main.findLast((name) => name.startsWith("caption"));
  const hasPair = "a" in of.properties && "b" in of.properties;
  const hasWrongSetting = others.some((name) => fieldErrors.value[name]);
  return (
    <form class="form" noValidate onSubmit={(event) => (event.preventDefault(), void draw())}>
      <div class="form-scroll">
        <p class="about">{verbWords(verb.value).about}</p>
        {hasPair && <Pair />}
        {main
          .filter((name) => !hasPair || (name !== "a" && name !== "b"))
          .map((name) => (
            <Fragment key={name}>
              <Field name={name} />
              {name === lastCaption && <Examples />}
            </Fragment>
          ))}
        {others.length > 0 && (
          <details
            class="more"
            open={isOpen.value || hasWrongSetting}
            onToggle={(event) => (isOpen.value = event.currentTarget.open)}
          >
            <summary>More settings</summary>
            {others.map((name) => (
              <Field key={name} name={name} />
            ))}
            <button type="button" class="button small quiet" onClick={resetSettings}>
              Back to the model’s own
            </button>
          </details>
        )}
      </div>
      <DrawBar />
    </form>
  );
}

/** The two ends of a blend, side by side. */
function Pair() {
  const swap = () => {
    const { a = null, b = null } = draft.value;
    setField("a", b);
    setField("b", a);
  };
  return (
    <div class="pair">
      <Field name="a" />
      <IconButton icon="swap" label="Swap the pictures" onClick={swap} />
      <Field name="b" />
    </div>
  );
}

const SHOWN_EXAMPLES = 3;

function Examples() {
  const take = (values: Values) => Object.entries(values).forEach(([name, value]) => setField(name, value));
  if (!examples.value.length) return null;
  return (
    <div class="examples" role="group" aria-label="Examples of what this model knows">
      {examples.value.slice(0, SHOWN_EXAMPLES).map((values) => (
        <button type="button" class="chip" key={captionOf(values)} onClick={() => take(values)}>
          {captionOf(values)}
        </button>
      ))}
    </div>
  );
}

function DrawBar() {
  return (
    <div class="draw-bar">
      {formError.value && (
        <p class="error" role="alert">
          {formError.value}
        </p>
      )}
      <div class="draw-row">
        <button type="submit" class="button primary" disabled={connection.value === "lost"}>
          <Icon name={verb.value} />
          {verbWords(verb.value).button}
          <Keys>Ctrl+↵</Keys>
        </button>
        <button
          type="button"
          class="button plot-button"
          title="A grid over two settings"
          onClick={() => open({ kind: "grid" })}
        >
          <Icon name="grid" />
          <span class="hidden">A grid over two settings</span>
        </button>
      </div>
    </div>
  );
}
