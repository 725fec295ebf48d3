/** The bar above all: the name, the line to the server, the theme, help. */

import { unfinished } from "../state/jobs";
import { connection, isDark, open, toggleTheme } from "../state/ui";
import { connect } from "../state/live";
import { plural } from "../words";
import { IconButton } from "./bits";
import mark from "../flax.svg";

export function Header() {
  const waiting = unfinished.value.length;
  return (
    <header class="top">
      <h1>
        <img src={mark} alt="" width="26" height="26" />
        flaxgen <em>studio</em>
      </h1>
      <Line />
      <span class="grow" />
      {waiting > 0 && <span class="pill busy">{plural(waiting, "drawing")} in the queue</span>}
      <IconButton
        icon={isDark.value ? "sun" : "moon"}
        label={isDark.value ? "Light colours" : "Dark colours"}
        hint="t"
        onClick={toggleTheme}
      />
      <IconButton icon="help" label="Keyboard shortcuts" hint="?" onClick={() => open({ kind: "help" })} />
    </header>
  );
}

/** Says when the server is out of reach; says nothing when all is well. */
function Line() {
  return (
    <span role="status" class="line">
      {connection.value === "lost" && (
        <span class="pill warn">
          No connection. Trying again …
          <button type="button" class="link" onClick={connect}>Try now</button>
        </span>
      )}
    </span>
  );
}
