/** The dialog on top, if any. */

import { dialog } from "../state/ui";
import { Compare } from "./Compare";
import { Dropped } from "./Dropped";
import { Help } from "./Help";
import { Picker } from "./Picker";
import { PlotDialog } from "./PlotDialog";
import { Token } from "./Token";
import { Viewer } from "./Viewer";

export function Dialogs() {
  const shown = dialog.value;
  switch (shown?.kind) {
    case "viewer":
      return <Viewer id={shown.picture} among={shown.among} />;
    case "compare":
      return <Compare ids={shown.pictures} />;
    case "picker":
      return <Picker title={shown.title} choose={shown.choose} />;
    case "dropped":
      return <Dropped upload={shown.upload} stored={shown.stored} />;
    case "grid":
      return <PlotDialog />;
    case "help":
      return <Help />;
    case "token":
      return <Token />;
    default:
      return null;
  }
}
