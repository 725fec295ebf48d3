/** What the stage shows before anything is drawn. */

import { draft, setField } from "../state/draft";
import { chooseVerb, model, models } from "../state/models";
import { pane } from "../state/ui";
import { fieldLabel } from "../words";
import { PictureWell } from "../fields/PictureWell";
import mark from "../flax.svg";

export function Welcome() {
  if (!models.value) return null;
  const choose = (text: string) => {
    chooseVerb("draw");
    setField("captions", [text]);
    pane.value = "make";
    requestAnimationFrame(() => document.getElementById("field-captions")?.focus());
  };
  const known = model.value?.verbs.includes("draw") ? (model.value.examples ?? []) : [];
  return (
    <div class="welcome">
      <img src={mark} alt="" width="72" height="72" />
      <h2>What shall it draw?</h2>
      <p>
        Everything is drawn on the machine that this studio runs on. Pictures you drop anywhere on the page can be
        varied, blended, changed and completed.
      </p>
      {known.length > 0 && (
        <div class="examples centred">
          {known.slice(0, 8).map((text) => (
            <button type="button" class="chip" key={text} onClick={() => choose(text)}>{text}</button>
          ))}
        </div>
      )}
    </div>
  );
}

export function InpaintWelcome() {
  const value = draft.value.image;
  const picture = typeof value === "string" ? value : null;
  if (picture) return <p class="waiting">Opening the picture …</p>;
  return (
    <div class="welcome">
      <h2>Which picture?</h2>
      <p>Choose one, paint over what you want changed, and say what shall be there instead.</p>
      <div class="large-well">
        <PictureWell
          id="stage-image"
          label={fieldLabel("image")}
          picture={null}
          change={(id) => setField("image", id)}
        />
      </div>
    </div>
  );
}
