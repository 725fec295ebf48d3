/** What happened, in a corner for a while, and what only screen readers are told. */

import { announcement, dismiss, notes } from "../state/ui";
import { Icon } from "./icons";

function Corner() {
  return (
    <div class="notes">
      {notes.value.map((one) => (
        <div class="note" key={one.id} role={one.isError ? "alert" : "status"} data-error={one.isError || undefined}>
          <span>{one.text}</span>
          {one.undo && (
            <button type="button" class="link" onClick={() => (one.undo?.run(), dismiss(one.id))}>
              {one.undo.label}
            </button>
          )}
          <button type="button" class="icon-button" aria-label="Dismiss" onClick={() => dismiss(one.id)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

function Announcer() {
  return (
    <p class="hidden" role="status" aria-live="polite">
      {announcement.value}
    </p>
  );
}

/** Where the user is: nothing outside a dialog is heard while it is open. */
export function Notes() {
  return (
    <>
      <Corner />
      <Announcer />
    </>
  );
}
