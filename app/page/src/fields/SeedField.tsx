/** The seed: new for every drawing, unless it is to be kept. */

import { hasNewSeeds, randomSeed } from "../state/draft";
import { IconButton } from "../parts/bits";
import type { InputProps } from "./NumberField";

export function SeedField({ id, value, change, described, isInvalid }: InputProps) {
  return (
    <div class="seed">
      <div class="stepper">
        <input
          id={id}
          data-focus
          class="input number"
          type="number"
          inputMode="numeric"
          min={0}
          max={2 ** 32 - 1}
          value={value === null ? "" : String(value)}
          aria-describedby={described}
          aria-invalid={isInvalid}
          onInput={(event) => {
            hasNewSeeds.value = false;
            change(event.currentTarget.value === "" ? null : Number(event.currentTarget.value));
          }}
        />
        <IconButton icon="dice" label="Another seed" onClick={() => change(randomSeed())} />
      </div>
      <label class="switch small">
        <input
          type="checkbox"
          role="switch"
          checked={hasNewSeeds.value}
          onChange={(event) => (hasNewSeeds.value = event.currentTarget.checked)}
        />
        <span>New each time</span>
      </label>
    </div>
  );
}
