/** The keys of the mask editor; all that a pointer does can be done with them. */

import type { Editor } from "../parts/MaskEditor";
import { brush, changed, tool } from "../state/mask";
import { hasShortcuts } from "../state/ui";

export const LEAST_BRUSH = 0.02;
export const MOST_BRUSH = 0.6;
const STEP = 1.25;
const MOVES: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

/** Whether Space is held: then the brush paints where the arrows take it. */
let isPainting = false;
addEventListener("keyup", (event) => {
  if (event.key === " ") isPainting = false;
});

export function resize(by: number): void {
  brush.value = Math.min(MOST_BRUSH, Math.max(LEAST_BRUSH, brush.value * by));
}

export function onEditorKey(event: KeyboardEvent, editor: Editor): void {
  if (isUndo(event)) {
    event.preventDefault();
    (event.shiftKey ? editor.mask.redo() : editor.mask.undo()) && changed();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const move = MOVES[event.key];
  if (move || event.key === " ") {
    event.preventDefault();
    if (move) walk(editor, move, event.shiftKey);
    else if (!event.repeat) dab(editor);
    return;
  }
  if (!hasShortcuts.value) return;
  const action = letters(editor)[event.key];
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  action();
}

function isUndo(event: KeyboardEvent): boolean {
  return (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
}

function letters(editor: Editor): Record<string, () => void> {
  return {
    b: () => (tool.value = "brush"),
    e: () => (tool.value = "eraser"),
    h: () => (tool.value = "pan"),
    "[": () => resize(1 / STEP),
    "]": () => resize(STEP),
    i: () => (editor.mask.invert(), changed()),
    "+": () => editor.zoomBy(STEP),
    "=": () => editor.zoomBy(STEP),
    "-": () => editor.zoomBy(1 / STEP),
    "0": () => editor.refit(),
  };
}

function spot(editor: Editor) {
  const at = editor.cursor ?? { x: editor.mask.width / 2, y: editor.mask.height / 2 };
  return { ...at, radius: editor.radius() };
}

function dab(editor: Editor): void {
  const here = spot(editor);
  isPainting = true;
  editor.mask.begin();
  editor.mask.stroke(here, here, tool.value !== "eraser");
  editor.setCursor(here);
  changed();
}

function walk(editor: Editor, [dx, dy]: [number, number], isFine: boolean): void {
  const before = spot(editor);
  const step = isFine ? 1 : Math.max(1, before.radius / 2);
  const clamp = (value: number, most: number) => Math.min(most, Math.max(0, value));
  const after = {
    x: clamp(before.x + dx * step, editor.mask.width),
    y: clamp(before.y + dy * step, editor.mask.height),
    radius: before.radius,
  };
  if (isPainting) {
    editor.mask.stroke(before, after, tool.value !== "eraser");
    changed();
  }
  editor.setCursor(after);
}
