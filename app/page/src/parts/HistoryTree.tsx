/** Which picture came from which: a tree from the oldest forebear to what was drawn from this one. */

import { useEffect, useState } from "preact/hooks";

import { api, thumbnailUrl } from "../api";
import { open } from "../state/ui";
import type { History, Picture } from "../types";
import { captionOf, verbWords } from "../words";

export function HistoryTree({ picture }: { picture: Picture }) {
  const [history, setHistory] = useState<History | null>(null);
  useEffect(() => {
    let isWanted = true;
    api.history(picture.id).then((found) => isWanted && setHistory(found), () => isWanted && setHistory(null));
    return () => void (isWanted = false);
  }, [picture.id]);
  if (!history || (!history.ancestors.length && !history.children.length)) return null;
  const line = lineage(picture, history.ancestors);
  return (
    <section class="history" aria-label="History">
      <h3>History</h3>
      <Branch line={line} here={picture} offspring={history.children} />
    </section>
  );
}

/** From the oldest to this picture, by who is whose parent, in whatever order the server lists them. */
function lineage(picture: Picture, ancestors: Picture[]): Picture[] {
  const byId = new Map(ancestors.map((one) => [one.id, one]));
  const line = [picture];
  for (let parent = byId.get(picture.parent ?? ""); parent; parent = byId.get(parent.parent ?? "")) {
    line.unshift(parent);
    byId.delete(parent.id);
  }
  return line;
}

function Branch({ line, here, offspring }: { line: Picture[]; here: Picture; offspring: Picture[] }) {
  const [first, ...rest] = line;
  if (!first) return null;
  return (
    <ul class="tree">
      <li>
        <Node picture={first} isHere={first.id === here.id} among={[first.id]} />
        {rest.length > 0 && <Branch line={rest} here={here} offspring={offspring} />}
        {rest.length === 0 && offspring.length > 0 && (
          <ul class="tree">
            {offspring.map((child) => (
              <li key={child.id}>
                <Node picture={child} isHere={false} among={offspring.map((one) => one.id)} />
              </li>
            ))}
          </ul>
        )}
      </li>
    </ul>
  );
}

function Node({ picture, isHere, among }: { picture: Picture; isHere: boolean; among: string[] }) {
  const name = picture.kind === "upload" ? "Uploaded" : verbWords(picture.verb).name;
  return (
    <button
      type="button"
      class="node"
      aria-current={isHere}
      onClick={() => open({ kind: "viewer", picture: picture.id, among })}
    >
      <img src={thumbnailUrl(picture.id)} alt="" loading="lazy" />
      <span>
        {name}
        <small>{captionOf(picture.request)}</small>
      </span>
    </button>
  );
}
