/** Keys that work everywhere on the page. Single letters can be turned off, as speech input may type them. */

import { draw } from "./actions";
import { goTo } from "./parts/VerbTabs";
import { cancelJob, shownJob, unfinished } from "./state/jobs";
import { verbNames } from "./state/models";
import { dialog, hasShortcuts, open, pane, toggleTheme } from "./state/ui";

export function watchKeys(): void {
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      event.preventDefault();
      if (event.altKey) cancelShown();
      else if (!dialog.value) void draw();
      return;
    }
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!isPlain || !hasShortcuts.value || dialog.value || isTyping(event.target)) return;
    const action = actionOf(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input:not([type=range], [type=checkbox]), textarea, select");
}

function cancelShown(): void {
  const job = unfinished.value.find((one) => one.id === shownJob.value?.id) ?? unfinished.value.at(-1);
  if (job) void cancelJob(job.id);
}

function actionOf(key: string): (() => void) | undefined {
  const name = /^[1-9]$/.test(key) ? verbNames.value[Number(key) - 1] : undefined;
  if (name) return () => goTo(name);
  const actions: Record<string, () => void> = {
    "?": () => open({ kind: "help" }),
    "/": () => focusIn("gallery", "search"),
    p: () => focusIn("make", "field-captions", "field-caption", "field-caption_from"),
    t: toggleTheme,
  };
  return actions[key];
}

function focusIn(shows: "make" | "gallery", ...ids: string[]): void {
  pane.value = shows;
  requestAnimationFrame(() => ids.map((id) => document.getElementById(id)).find(Boolean)?.focus());
}
