/** The mask in the form: how much is marked, and the way to the canvas where it is painted. */

import { mask, version } from "../state/mask";
import { pane, stageShows } from "../state/ui";
import type { InputProps } from "./NumberField";

export function MaskField({ id, described, isInvalid }: InputProps) {
  void version.value; // follows the painting
  const painted = mask.value;
  const marked = painted ? painted.data.reduce((sum, value) => sum + (value > 0 ? 1 : 0), 0) / painted.data.length : 0;
  const show = () => {
    stageShows.value = "canvas";
    pane.value = "stage";
  };
  const amount = marked > 0 ? `${Math.max(1, Math.round(100 * marked))} % marked` : "Nothing marked yet";
  return (
    <div class="mask-field">
      <span>{painted ? amount : "Choose a picture first"}</span>
      <button
        type="button"
        id={id}
        data-focus
        class="button small"
        disabled={!painted}
        aria-describedby={described}
        aria-invalid={isInvalid}
        onClick={show}
      >
        Paint it
      </button>
    </div>
  );
}
