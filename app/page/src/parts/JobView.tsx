/** One job: what was asked, how far it is, and what came of it. */

import { drawAgain } from "../actions";
import { thumbnailUrl } from "../api";
import { fileName, saveRequest, saveSheet } from "../download";
import { cancelJob, isUnfinished, previews } from "../state/jobs";
import type { Job } from "../types";
import { plural, show, titleOf, verbWords } from "../words";
import { IconButton, Progress } from "./bits";
import { Film } from "./Film";
import { Tile } from "./Tile";

/** Verbs whose pictures are a way from one to another. */
const WAYS = new Set(["blend", "edit", "interpolate"]);

export function JobView({ job }: { job: Job }) {
  const isWay = WAYS.has(job.verb) && job.pictures.length > 1;
  return (
    <article class="job" data-state={job.state} aria-label={`${verbWords(job.verb).name}: ${titleOf(job)}`}>
      <JobHead job={job} />
      {isUnfinished(job) && <Waiting job={job} />}
      {job.state === "failed" && (
        <p class="notice error">{job.error ?? "It failed, and the server did not say why."}</p>
      )}
      {job.state === "cancelled" && <p class="notice">This was cancelled.</p>}
      {job.state === "done" && job.pictures.length === 0 && <p class="notice">Its pictures were deleted.</p>}
      {isWay ? <Film job={job} key={job.id} /> : <Results job={job} />}
    </article>
  );
}

function JobHead({ job }: { job: Job }) {
  return (
    <header class="job-head">
      {job.parent && <img class="job-parent" src={thumbnailUrl(job.parent)} alt="The picture it starts from" />}
      <div class="grow">
        <p class="over">
          {verbWords(job.verb).name} · {job.model}
        </p>
        <h2>{titleOf(job)}</h2>
      </div>
      <div class="job-tools">
        {isUnfinished(job) ? (
          <button type="button" class="button small" onClick={() => void cancelJob(job.id)}>
            Cancel
          </button>
        ) : (
          <>
            <IconButton icon="again" label="Draw again" onClick={() => void drawAgain(job)} />
            <IconButton
              icon="download"
              label="Download all as one sheet"
              isDisabled={!job.pictures.length}
              onClick={() => void saveSheet(job.pictures, columnsOf(job), fileName(job))}
            />
            <IconButton icon="request" label="Download the request" onClick={() => saveRequest(job)} />
          </>
        )}
      </div>
    </header>
  );
}

function Waiting({ job }: { job: Job }) {
  const isRunning = job.state === "running";
  const share = isRunning && job.steps ? job.step / job.steps : null;
  const ahead = job.position ?? 0;
  const queued = ahead > 0 ? `${plural(ahead, "drawing")} before this one` : "Next in the queue";
  const text = isRunning ? (share ? `${Math.round(100 * share)} %` : "Getting the model ready …") : queued;
  const preview = previews.value[job.id];
  return (
    <div class="job-waiting">
      <Progress share={share} label={`Progress of ${titleOf(job)}`} />
      <p class="hint">{text}</p>
      {preview ? (
        <img class="preview" src={preview} alt="How far the pictures are" />
      ) : (
        <div class="results" style={shapeOf(job)}>
          {Array.from({ length: expected(job) }, (_, i) => (
            <div class="tile empty" key={i} />
          ))}
        </div>
      )}
    </div>
  );
}

const MOST_EMPTY = 16;

/** How many pictures are to come. */
function expected(job: Job): number {
  const captions = job.request.captions;
  const each = Number(job.request.num ?? job.request.frames ?? 1) || 1;
  return Math.min(MOST_EMPTY, each * (Array.isArray(captions) ? captions.length : 1));
}

/** A row for each caption; else as near to a square as can be. */
export function columnsOf(job: Job): number {
  const count = job.pictures.length || expected(job);
  const captions = job.request.captions;
  if (Array.isArray(captions) && captions.length > 1) return Math.max(1, Math.round(count / captions.length));
  return count <= 3 ? Math.max(1, count) : Math.ceil(Math.sqrt(count));
}

const MOST_ROWS = 3; // that are made to fit; more are scrolled to

/** What the style sheet needs to make the pictures as large as the stage allows. */
function shapeOf(job: Job): Record<string, number> {
  const columns = columnsOf(job);
  const rows = Math.ceil((job.pictures.length || expected(job)) / columns);
  return { "--columns": columns, "--rows": Math.min(rows, MOST_ROWS) };
}

function Results({ job }: { job: Job }) {
  const captions = Array.isArray(job.request.captions) ? job.request.captions.map(show) : [];
  const columns = columnsOf(job);
  const label = (i: number) =>
    `${captions[captions.length > 1 ? Math.floor(i / columns) : 0] ?? titleOf(job)}, ${i + 1}`;
  if (!job.pictures.length) return null;
  return (
    <div class="results" style={shapeOf(job)}>
      {job.pictures.map((id, i) => (
        <Tile key={id} id={id} label={label(i)} among={job.pictures} isWhole={job.pictures.length <= 9} />
      ))}
    </div>
  );
}
