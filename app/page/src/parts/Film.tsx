/** Pictures on a way from one to another: one at a time under a slider, which also plays. */

import { useEffect, useState } from "preact/hooks";

import { pictureUrl, thumbnailUrl } from "../api";
import type { Job } from "../types";
import { titleOf } from "../words";
import { IconButton } from "./bits";
import { open } from "../state/ui";
import { Tile } from "./Tile";

const SPEED = 6; // pictures a second where the request does not say

export function Film({ job }: { job: Job }) {
  const last = job.pictures.length - 1;
  const [at, setAt] = useState(job.verb === "blend" ? Math.floor(last / 2) : 0);
  const [plays, setPlays] = useState(false);
  const now = Math.min(at, last);
  useEffect(() => {
    if (!plays) return;
    const pause = 1000 / (Number(job.request.fps) || SPEED);
    const timer = setInterval(() => setAt((old) => (old >= last ? 0 : old + 1)), pause);
    return () => clearInterval(timer);
  }, [plays, last]);
  const id = job.pictures[now] ?? "";
  return (
    <div class="film">
      <button
        type="button"
        class="film-open"
        onClick={() => open({ kind: "viewer", picture: id, among: job.pictures })}
      >
        {/* All stay in place, so that none has to be loaded while it plays. */}
        {job.pictures.map((one, i) => (
          <img key={one} src={pictureUrl(one)} alt={i === now ? `${titleOf(job)}, ${i + 1}` : ""} hidden={i !== now} />
        ))}
      </button>
      <FilmBar job={job} now={now} plays={plays} setPlays={setPlays} setAt={setAt} />
      <div class="strip">
        {job.pictures.map((one, i) => (
          <Tile key={one} id={one} label={`${titleOf(job)}, ${i + 1}`} among={job.pictures} />
        ))}
      </div>
    </div>
  );
}

interface FilmBarProps {
  job: Job;
  now: number;
  plays: boolean;
  setPlays: (plays: boolean) => void;
  setAt: (at: number) => void;
}

function FilmBar({ job, now, plays, setPlays, setAt }: FilmBarProps) {
  const last = job.pictures.length - 1;
  return (
    <div class="film-bar">
      <End id={job.request.a} label="First picture" />
      <IconButton icon={plays ? "pause" : "play"} label={plays ? "Stop" : "Play"} onClick={() => setPlays(!plays)} />
      <input
        type="range"
        aria-label="Which picture on the way"
        aria-valuetext={`${now + 1} of ${last + 1}`}
        style={{ "--fill": `${(100 * now) / Math.max(1, last)}%` }}
        min={0}
        max={last}
        value={now}
        onInput={(event) => (setPlays(false), setAt(Number(event.currentTarget.value)))}
      />
      <span class="count">{now + 1} / {last + 1}</span>
      <End id={job.request.b} label="Last picture" />
    </div>
  );
}

function End({ id, label }: { id: unknown; label: string }) {
  return typeof id === "string" ? <img class="film-end" src={thumbnailUrl(id)} alt={label} /> : null;
}
