/** Starts the page. */

import { render } from "preact";

import { App } from "./App";
import { watchDrops } from "./drops";
import { watchKeys } from "./shortcuts";
import { watchFilters } from "./state/gallery";
import { connect, watchConnection } from "./state/live";
import { watchMask } from "./state/mask";
import { begin } from "./state/session";
import "./styles/index.css";

const root = document.getElementById("app");
if (root) render(<App />, root);
watchKeys();
watchDrops();
watchMask();
watchFilters();
watchConnection();
void begin().then(connect);
