/** The page as a whole: make, stage, gallery; side by side, or one at a time on a narrow screen. */

import { isHovering } from "./drops";
import { Dialogs } from "./parts/Dialogs";
import { MakePanel } from "./parts/Form";
import { Gallery } from "./parts/Gallery";
import { Header } from "./parts/Header";
import { Icon } from "./parts/icons";
import { Notes } from "./parts/Notes";
import { Stage } from "./parts/Stage";
import { unfinished } from "./state/jobs";
import { dialog, type Pane, pane } from "./state/ui";

const PANES: [Pane, string, string][] = [
  ["make", "Make", "draw"],
  ["stage", "Pictures", "image"],
  ["gallery", "Gallery", "gallery"],
];

export function App() {
  return (
    <>
      <a class="skip" href="#main">Skip to the pictures</a>
      <Header />
      <div class="panes" data-pane={pane.value}>
        <MakePanel />
        <main id="main" tabIndex={-1}><Stage /></main>
        <Gallery />
      </div>
      <nav class="bottom" aria-label="Parts of the page">
        {PANES.map(([name, text, icon]) => (
          <button type="button" key={name} aria-current={pane.value === name} onClick={() => (pane.value = name)}>
            <Icon name={icon} />
            {text}
            {name === "stage" && unfinished.value.length > 0 && <span class="badge">{unfinished.value.length}</span>}
          </button>
        ))}
      </nav>
      <Dialogs />
      {!dialog.value && <Notes />}
      {isHovering.value && <div class="drop-veil"><p>Drop it to read its request or use it</p></div>}
    </>
  );
}
