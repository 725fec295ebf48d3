/** One picture, large: how it was drawn, what it can be used for, where it comes from. */

import { useEffect, useState } from "preact/hooks";

import { drawAgain, remove, setFavourite, useAsInput } from "../actions";
import { api, pictureUrl } from "../api";
import { savePicture, saveRequest } from "../download";
import { draggedPicture } from "../drag";
import { pictureField, verbNames } from "../state/models";
import { close, noteError, open } from "../state/ui";
import type { Picture } from "../types";
import { captionOf, fieldLabel, show, verbWords } from "../words";
import { IconButton, Modal } from "./bits";
import { HistoryTree } from "./HistoryTree";
import { Icon } from "./icons";

interface ViewerProps {
  id: string;
  among: string[];
}

export function Viewer({ id, among }: ViewerProps) {
  const [picture, setPicture] = useState<Picture | null>(null);
  useEffect(() => {
    let isWanted = true;
    const gone = (error: unknown) => isWanted && (close(), noteError(error));
    api.info(id).then((found) => isWanted && setPicture(found), gone);
    return () => void (isWanted = false);
  }, [id]);
  const place = among.indexOf(id);
  const step = (by: number) => {
    const to = among[place + by];
    if (to !== undefined) open({ kind: "viewer", picture: to, among });
  };
  const shown = picture?.id === id ? picture : null;
  return (
    <Modal title="Picture" size="full" onKeyDown={(event) => shown && onKey(event, shown, step, setPicture)}>
      <div class="viewer">
        <div class="viewer-stage">
          <img
            src={pictureUrl(id)}
            alt={shown ? captionOf(shown.request) || "The picture" : "The picture"}
            draggable
            onDragStart={draggedPicture(id)}
          />
          <Steps place={place} count={among.length} step={step} />
        </div>
        {shown ? <About picture={shown} setPicture={setPicture} /> : <div class="viewer-about" />}
      </div>
    </Modal>
  );
}

interface StepsProps {
  place: number;
  count: number;
  step: (by: number) => void;
}

function Steps({ place, count, step }: StepsProps) {
  return (
    <div class="viewer-steps">
      <IconButton
        icon="left"
        label="Previous picture"
        hint="←"
        isDisabled={place <= 0}
        onClick={() => step(-1)}
      />
      <IconButton
        icon="right"
        label="Next picture"
        hint="→"
        isDisabled={place < 0 || place >= count - 1}
        onClick={() => step(1)}
      />
    </div>
  );
}

function onKey(event: KeyboardEvent, picture: Picture, step: (by: number) => void, set: (picture: Picture) => void) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const run: Record<string, () => void> = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    f: () => void setFavourite(picture, !picture.favourite).then(set),
    d: () => void savePicture(picture),
    Delete: () => remove(picture.id),
  };
  const action = run[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function About({ picture, setPicture }: { picture: Picture; setPicture: (picture: Picture) => void }) {
  const isDrawn = picture.kind === "drawn";
  return (
    <div class="viewer-about">
      <p class="over">{isDrawn ? `${verbWords(picture.verb).name} · ${picture.model}` : "Uploaded"}</p>
      {isDrawn && captionOf(picture.request) && <p class="viewer-title">{captionOf(picture.request)}</p>}
      <div class="viewer-tools">
        <IconButton
          icon="star"
          hint="f"
          label="Favourite"
          isPressed={picture.favourite}
          onClick={() => void setFavourite(picture, !picture.favourite).then(setPicture)}
        />
        <IconButton icon="download" label="Download the picture" hint="d" onClick={() => void savePicture(picture)} />
        {isDrawn && (
          <>
            <IconButton icon="request" label="Download its request" onClick={() => saveRequest(picture)} />
            <button type="button" class="button small" onClick={() => void drawAgain(picture)}>
              <Icon name="again" />
              Draw again
            </button>
          </>
        )}
        <span class="grow" />
        <IconButton icon="trash" label="Delete" hint="Del" isDanger onClick={() => remove(picture.id)} />
      </div>
      <h3>Use it to</h3>
      <Uses picture={picture.id} />
      {isDrawn && <Settings picture={picture} />}
      <HistoryTree picture={picture} />
    </div>
  );
}

/** The verbs that take a picture, each a button; a blend takes it as either end. */
export function Uses({ picture }: { picture: string }) {
  const uses = verbNames.value.flatMap((name) => {
    const isPair = name === "blend" && pictureField(name, 1) !== null;
    const ends = isPair ? [0, 1] : pictureField(name) ? [0] : [];
    return ends.map((which) => ({ name, which, isPair }));
  });
  return (
    <div class="uses">
      {uses.map(({ name, which, isPair }) => (
        <button
          type="button"
          class="button small"
          key={`${name}${which}`}
          onClick={() => useAsInput(picture, name, which)}
        >
          <Icon name={name} />
          {verbWords(name).name}
          {isPair && (which ? " (last)" : " (first)")}
        </button>
      ))}
    </div>
  );
}

const SAID = new Set(["captions", "caption", "caption_from", "caption_to"]);

function Settings({ picture }: { picture: Picture }) {
  const rows = Object.entries(picture.request).filter(([name, value]) => !SAID.has(name) && value !== null);
  return (
    <details class="more" open>
      <summary>Settings</summary>
      <dl class="settings">
        <div>
          <dt>Size</dt>
          <dd>
            {picture.width} × {picture.height}
          </dd>
        </div>
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{fieldLabel(name, picture.verb)}</dt>
            <dd>{isId(value) ? "a picture" : show(value)}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}

/** Ids of inputs say nothing to people. */
function isId(value: unknown): boolean {
  return typeof value === "string" && /^[A-Za-z0-9_-]{22}$/.test(value);
}
