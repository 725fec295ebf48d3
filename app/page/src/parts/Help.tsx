/** The keys, and whether single letters are keys at all. */

import { hasShortcuts } from "../state/ui";
import { Keys, Modal } from "./bits";

const GROUPS: [string, [string, string][]][] = [
  ["Everywhere", [
    ["Ctrl+↵", "Draw"],
    ["Ctrl+Alt+↵", "Cancel what is drawn"],
    ["1+…+9", "Go to a tab"],
    ["p", "To the prompt"],
    ["/", "Search the gallery"],
    ["t", "Light or dark"],
    ["Ctrl+v", "Paste a picture"],
    ["?", "These keys"],
  ]],
  ["A picture, large", [
    ["←+→", "Previous, next"],
    ["f", "Favourite"],
    ["d", "Download"],
    ["Del", "Delete"],
    ["Esc", "Close"],
  ]],
  ["Painting a mask", [
    ["b", "Brush"],
    ["e", "Eraser"],
    ["[+]", "Smaller, larger"],
    ["Ctrl+z", "Undo"],
    ["Ctrl+Shift+z", "Redo"],
    ["i", "Invert"],
    ["plus+-+0", "Zoom in, out, fit"],
    ["Space", "Paint at the cross; with arrows it moves"],
  ]],
];

export function Help() {
  return (
    <Modal title="Keyboard shortcuts">
      <div class="help">
        {GROUPS.map(([title, keys]) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {keys.map(([key, text]) => (
                <div key={key}>
                  <dt><Keys>{key}</Keys></dt>
                  <dd>{text}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <label class="switch">
        <input
          type="checkbox"
          role="switch"
          checked={hasShortcuts.value}
          onChange={(event) => (hasShortcuts.value = event.currentTarget.checked)}
        />
        <span>Keys of a single letter</span>
      </label>
    </Modal>
  );
}
