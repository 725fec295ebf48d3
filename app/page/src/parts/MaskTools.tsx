/** The tools above the canvas of a mask. */

import type { MaskDocument } from "../mask/document";
import { LEAST_BRUSH, MOST_BRUSH } from "../mask/keys";
import { draft, setField } from "../state/draft";
import { brush, changed, extend, tool, type Tool, version } from "../state/mask";
import { schema } from "../state/models";
import { IconButton } from "./bits";
import type { IconName } from "./icons";
import type { Editor } from "./MaskEditor";

const TOOLS: [Tool, IconName, string, string][] = [
  ["brush", "inpaint", "Brush", "b"],
  ["eraser", "eraser", "Eraser", "e"],
  ["pan", "hand", "Move the picture", "h"],
];
const ZOOM = 1.4;
const BORDER = 0.25; // of the shorter side, added on each side when a picture is extended
const MOST_FEATHER = 24;

export function MaskTools({ editor }: { editor: Editor }) {
  void version.value; // follows what can be undone
  const { mask } = editor;
  return (
    <div class="tools" role="toolbar" aria-label="Tools of the mask">
      <div class="tool-group">
        {TOOLS.map(([name, icon, label, key]) => (
          <IconButton
            key={name}
            icon={icon}
            label={label}
            hint={key}
            isPressed={tool.value === name}
            onClick={() => (tool.value = name)}
          />
        ))}
      </div>
      <BrushSliders />
      <Changes mask={mask} />
      <div class="tool-group">
        <IconButton icon="minus" label="Zoom out" hint="-" onClick={() => editor.zoomBy(1 / ZOOM)} />
        <button type="button" class="button small quiet" onClick={editor.refit}>
          Fit
        </button>
        <IconButton icon="plus" label="Zoom in" hint="+" onClick={() => editor.zoomBy(ZOOM)} />
      </div>
    </div>
  );
}

function Changes({ mask }: { mask: MaskDocument }) {
  const apply = (change: () => unknown) => () => (change(), changed());
  return (
    <div class="tool-group">
      <IconButton
        icon="undo"
        label="Undo"
        hint="Ctrl z"
        isDisabled={!mask.canUndo}
        onClick={apply(() => mask.undo())}
      />
      <IconButton
        icon="redo"
        label="Redo"
        hint="Ctrl Shift z"
        isDisabled={!mask.canRedo}
        onClick={apply(() => mask.redo())}
      />
      <IconButton icon="invert" label="Invert" hint="i" onClick={apply(() => mask.invert())} />
      <IconButton icon="trash" label="Clear" isDisabled={mask.isEmpty} onClick={apply(() => mask.clear())} />
      <IconButton icon="expand" label="Extend the picture on all sides" onClick={() => void extend(BORDER)} />
    </div>
  );
}

function BrushSliders() {
  const share = (brush.value - LEAST_BRUSH) / (MOST_BRUSH - LEAST_BRUSH);
  const feather = Number(draft.value.feather ?? 0) || 0;
  return (
    <div class="tool-group sliders">
      <label>
        Size
        <input
          type="range"
          style={{ "--fill": `${100 * share}%` }}
          min={LEAST_BRUSH}
          max={MOST_BRUSH}
          step={0.01}
          value={brush.value}
          onInput={(event) => (brush.value = Number(event.currentTarget.value))}
        />
      </label>
      {schema.value?.properties.feather && (
        <label>
          Feather
          <input
            type="range"
            style={{ "--fill": `${Math.min(100, (100 * feather) / MOST_FEATHER)}%` }}
            min={0}
            max={MOST_FEATHER}
            step={1}
            value={feather}
            onInput={(event) => setField("feather", Number(event.currentTarget.value))}
          />
        </label>
      )}
    </div>
  );
}
