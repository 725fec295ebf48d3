/** What the chosen model can be asked, as tabs above the form. */

import { chooseVerb, verb, verbNames } from "../state/models";
import { clearErrors } from "../state/draft";
import { stageShows } from "../state/ui";
import { verbWords } from "../words";
import { Icon } from "./icons";

/** Goes to a verb's form; inpainting brings its canvas along. */
export function goTo(name: string): void {
  chooseVerb(name);
  clearErrors();
  if (name === "inpaint") stageShows.value = "canvas";
  else if (stageShows.value === "canvas") stageShows.value = "job";
}

export function VerbTabs() {
  const names = verbNames.value;
  const move = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = { Home: 0, End: names.length - 1 }[event.key];
    const to = at ?? (step ? (names.indexOf(verb.value) + step + names.length) % names.length : -1);
    const name = names[to];
    if (name === undefined) return;
    event.preventDefault();
    goTo(name);
    document.getElementById(`tab-${name}`)?.focus();
  };
  return (
    <div class="verbs" role="tablist" aria-label="What to do" onKeyDown={move}>
      {names.map((name) => (
        <button
          type="button"
          role="tab"
          key={name}
          id={`tab-${name}`}
          aria-selected={name === verb.value}
          aria-controls="form"
          tabIndex={name === verb.value ? 0 : -1}
          onClick={() => goTo(name)}
        >
          <Icon name={name} />
          <span>{verbWords(name).name}</span>
        </button>
      ))}
    </div>
  );
}
