/** Pictures side by side, with what differs in how they were drawn; two can also lie on each other. */

import { useEffect, useState } from "preact/hooks";

import { api, pictureUrl } from "../api";
import { noteError } from "../state/ui";
import type { Picture } from "../types";
import { captionOf, fieldLabel, show, verbWords } from "../words";
import { Modal, Segments } from "./bits";

type How = "side" | "over";

export function Compare({ ids }: { ids: string[] }) {
  const [pictures, setPictures] = useState<Picture[]>([]);
  const [how, setHow] = useState<How>("side");
  useEffect(() => void Promise.all(ids.map(api.info)).then(setPictures, noteError), [ids.join()]);
  return (
    <Modal title="Compare" size="full">
      {ids.length === 2 && (
        <Segments
          label="How to compare"
          value={how}
          options={[
            ["side", "Side by side"],
            ["over", "On each other"],
          ]}
          choose={setHow}
        />
      )}
      {how === "over" && ids.length === 2 ? <Wipe ids={ids} /> : <SideBySide ids={ids} pictures={pictures} />}
      {pictures.length > 0 && <Differences pictures={pictures} />}
    </Modal>
  );
}

function SideBySide({ ids, pictures }: { ids: string[]; pictures: Picture[] }) {
  return (
    <div class="side-by-side" style={{ "--columns": ids.length }}>
      {ids.map((id, i) => (
        <figure key={id}>
          <img src={pictureUrl(id)} alt={`Picture ${i + 1}`} />
          <figcaption>
            {i + 1}. {pictures[i] ? captionOf(pictures[i].request) || "Uploaded" : ""}
          </figcaption>
        </figure>
      ))}
    </div>
  );
}

function Wipe({ ids }: { ids: string[] }) {
  const [share, setShare] = useState(50);
  const [first = "", second = ""] = ids;
  return (
    <div class="wipe">
      <div class="wipe-stage">
        <img src={pictureUrl(second)} alt="Picture 2" />
        <img
          class="wipe-top"
          src={pictureUrl(first)}
          alt="Picture 1"
          style={{ clipPath: `inset(0 ${100 - share}% 0 0)` }}
        />
        <div class="wipe-line" style={{ left: `${share}%` }} />
      </div>
      <input
        type="range"
        aria-label="How much of the first picture is shown"
        style={{ "--fill": `${share}%` }}
        value={share}
        onInput={(event) => setShare(Number(event.currentTarget.value))}
      />
    </div>
  );
}

function Differences({ pictures }: { pictures: Picture[] }) {
  const values = pictures.map(({ request, model, verb }) => ({
    model,
    verb: verb && verbWords(verb).name,
    ...request,
  }));
  const names = [...new Set(values.flatMap((one) => Object.keys(one)))];
  const said = (i: number, name: string) => show((values[i] as Picture["request"])[name]);
  const different = names.filter((name) => new Set(values.map((_, i) => said(i, name))).size > 1);
  if (!different.length) return <p class="hint">They were drawn with the same settings.</p>;
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label="What differs">
      <table class="differences">
        <thead>
          <tr>
            <th scope="col">What differs</th>
            {pictures.map((picture, i) => (
              <th scope="col" key={picture.id}>
                {i + 1}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {different.map((name) => (
            <tr key={name}>
              <th scope="row">{fieldLabel(name)}</th>
              {pictures.map((picture, i) => (
                <td key={picture.id}>{said(i, name)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
