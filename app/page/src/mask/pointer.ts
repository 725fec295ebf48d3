/** Mouse, pen and fingers on the canvas: one paints, two fingers (or the hand, or the middle button) move it. */

import type { Point } from "./view";

export interface Hands {
  /** Whether a lone pointer moves the picture rather than painting. */
  isMoving: (event: PointerEvent) => boolean;
  begin: (at: Point, pressure: number) => void;
  draw: (at: Point, pressure: number) => void;
  end: () => void;
  /** A second finger came: what the first one painted was not meant. */
  withdraw: () => void;
  hover: (at: Point | null) => void;
  pan: (dx: number, dy: number) => void;
  zoom: (by: number, about: Point) => void;
}

type Doing = "nothing" | "painting" | "moving" | "pinching";
const WHEEL = 0.0018; // share of zoom for each pixel of a wheel

/** Listens on the canvas; returns what ends it. */
export function listen(canvas: HTMLCanvasElement, hands: Hands): () => void {
  const down = new Map<number, Point>();
  let doing: Doing = "nothing";
  const place = (event: MouseEvent) => placeOn(canvas, event);
  const press = (event: PointerEvent) => {
    if (event.button !== 0 && event.button !== 1) return;
    event.preventDefault();
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, place(event));
    if (down.size === 2) {
      if (doing === "painting") hands.withdraw();
      doing = "pinching";
    } else if (down.size === 1) {
      doing = event.button === 1 || hands.isMoving(event) ? "moving" : "painting";
      if (doing === "painting") hands.begin(place(event), pressureOf(event));
    }
  };
  const move = (event: PointerEvent) => {
    const at = place(event);
    if (event.pointerType !== "touch") hands.hover(at);
    const before = down.get(event.pointerId);
    if (!before) return;
    if (doing === "pinching") pinch(down, event.pointerId, at, hands);
    down.set(event.pointerId, at);
    if (doing === "moving") hands.pan(at.x - before.x, at.y - before.y);
    if (doing !== "painting") return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) hands.draw(place(one), pressureOf(one));
  };
  const lift = (event: PointerEvent) => {
    down.delete(event.pointerId);
    if (down.size > 0 && doing === "pinching") return; // the finger that stays does not begin to paint
    if (doing === "painting") hands.end();
    doing = "nothing";
  };
  return listenToAll(canvas, {
    pointerdown: press, pointermove: move, pointerup: lift, pointercancel: lift,
    pointerleave: () => hands.hover(null),
    wheel: (event) => wheel(event, placeOn(canvas, event), hands),
  });
}

interface Listeners {
  pointerdown: (event: PointerEvent) => void;
  pointermove: (event: PointerEvent) => void;
  pointerup: (event: PointerEvent) => void;
  pointercancel: (event: PointerEvent) => void;
  pointerleave: (event: PointerEvent) => void;
  wheel: (event: WheelEvent) => void;
}

function listenToAll(canvas: HTMLCanvasElement, listeners: Listeners): () => void {
  const all = Object.entries(listeners) as [string, EventListener][];
  for (const [name, listener] of all) canvas.addEventListener(name, listener, { passive: false });
  return () => all.forEach(([name, listener]) => canvas.removeEventListener(name, listener));
}

/** Where on the canvas it happened. */
function placeOn(canvas: HTMLCanvasElement, event: MouseEvent): Point {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

/** A pen's pressure; mice and fingers have none. */
function pressureOf(event: PointerEvent): number {
  return event.pointerType === "pen" && event.pressure > 0 ? 0.35 + 0.65 * event.pressure : 1;
}

function wheel(event: WheelEvent, at: Point, hands: Hands): void {
  event.preventDefault();
  hands.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 6 : 1) * WHEEL), at); // a trackpad's pinch comes with Ctrl
}

function pinch(down: Map<number, Point>, moved: number, to: Point, hands: Hands): void {
  const before = down.get(moved);
  const other = [...down].find(([id]) => id !== moved)?.[1];
  if (!before || !other) return;
  const apart = (a: Point) => Math.max(1, Math.hypot(a.x - other.x, a.y - other.y));
  hands.zoom(apart(to) / apart(before), { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 });
  hands.pan((to.x - before.x) / 2, (to.y - before.y) / 2);
}
