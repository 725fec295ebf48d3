/** The canvas on which a mask is painted, by pointer or by keys. */

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";

import { type MaskDocument, paintMask } from "../mask/document";
import { listen } from "../mask/pointer";
import { render } from "../mask/render";
import { fit, pan, type Point, type Size, toPicture, type View, zoom } from "../mask/view";
import { draft } from "../state/draft";
import { brush, changed, ground, tool, version } from "../state/mask";
import { onEditorKey } from "../mask/keys";
import { MaskTools } from "./MaskTools";

const COLOUR: [number, number, number] = [226, 68, 120]; // seldom in pictures, and far from both themes

/** What the editor knows of the canvas while it is open. */
export interface Editor {
  mask: MaskDocument;
  stage: Size;
  view: View;
  cursor: Point | null;
  radius: () => number;
  setView: (view: View) => void;
  setCursor: (cursor: Point | null) => void;
  zoomBy: (by: number, about?: Point) => void;
  refit: () => void;
}

export function MaskEditor({ mask }: { mask: MaskDocument }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const moved = useSignal(0);
  const editor = useMemo(() => newEditor(mask, () => moved.value++), [mask]);
  useEffect(() => watchSize(canvas.current, editor), [editor]);
  useEffect(() => (canvas.current ? listen(canvas.current, handsOf(editor)) : undefined), [editor]);
  void moved.value;
  const marked = useMemo(() => paintMask(mask, COLOUR), [mask, version.value]);
  const feather = Number(draft.value.feather ?? 0) || 0;
  useEffect(() => {
    if (!canvas.current || !ground.value) return;
    const cursor = editor.cursor && tool.value !== "pan" ? { ...editor.cursor, radius: editor.radius() } : null;
    render(canvas.current, {
      picture: ground.value, size: mask, marked, feather, cursor, view: editor.view, stage: editor.stage,
    });
  });
  return (
    <div class="editor">
      <MaskTools editor={editor} />
      <canvas
        ref={canvas}
        class="editor-canvas"
        data-tool={tool.value}
        tabIndex={0}
        role="application"
        aria-label="The mask. Arrow keys move the brush, Space paints."
        aria-describedby="editor-help"
        onKeyDown={(event) => onEditorKey(event, editor)}
      />
      <p class="hint" id="editor-help">Paint over what is to be drawn anew. Two fingers or the wheel zoom.</p>
    </div>
  );
}

function newEditor(mask: MaskDocument, tell: () => void): Editor {
  const editor: Editor = {
    mask,
    stage: { width: 0, height: 0 },
    view: { scale: 1, x: 0, y: 0 },
    cursor: null,
    radius: () => Math.max(0.5, (brush.value * Math.min(mask.width, mask.height)) / 2),
    setView: (view) => ((editor.view = view), tell()),
    setCursor: (cursor) => ((editor.cursor = cursor), tell()),
    zoomBy: (by, about) => {
      const { width, height } = editor.stage;
      editor.setView(zoom(editor.view, by, about ?? { x: width / 2, y: height / 2 }, fit(mask, editor.stage)));
    },
    refit: () => editor.setView(fit(mask, editor.stage)),
  };
  return editor;
}

/** The picture fits the canvas again whenever that changes its size. */
function watchSize(canvas: HTMLCanvasElement | null, editor: Editor): (() => void) | undefined {
  if (!canvas) return;
  const watcher = new ResizeObserver(() => {
    editor.stage = { width: canvas.clientWidth, height: canvas.clientHeight };
    editor.refit();
  });
  watcher.observe(canvas);
  return () => watcher.disconnect();
}

function handsOf(editor: Editor) {
  let last = { x: 0, y: 0, radius: 0 };
  const spot = (at: Point, pressure: number) => ({
    ...toPicture(editor.view, at),
    radius: editor.radius() * pressure,
  });
  return {
    isMoving: () => tool.value === "pan",
    begin: (at: Point, pressure: number) => {
      editor.mask.begin();
      last = spot(at, pressure);
      editor.mask.stroke(last, last, tool.value !== "eraser");
      changed();
    },
    draw: (at: Point, pressure: number) => {
      const next = spot(at, pressure);
      editor.mask.stroke(last, next, tool.value !== "eraser");
      last = next;
      changed();
    },
    end: changed,
    withdraw: () => (editor.mask.undo(), changed()),
    hover: (at: Point | null) => editor.setCursor(at && toPicture(editor.view, at)),
    pan: (dx: number, dy: number) => editor.setView(pan(editor.view, dx, dy)),
    zoom: (by: number, about: Point) => editor.zoomBy(by, about),
  };
}
