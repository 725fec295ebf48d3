/** The queue and what was drawn lately, as a strip: each goes to its job. */

import { thumbnailUrl } from "../api";
import { cancelJob, isUnfinished, jobs, previews, showJob, shownJob } from "../state/jobs";
import { plots, show, shownPlot } from "../state/plot";
import { stageShows } from "../state/ui";
import type { Job } from "../types";
import { titleOf, verbWords } from "../words";
import { IconButton, Progress } from "./bits";
import { Icon } from "./icons";

const SHOWN = 24;
const STATES = { queued: "waiting", running: "drawing", done: "", failed: "failed", cancelled: "cancelled" };

export function Recent() {
  const ofPlots = new Set(plots.value.flatMap((plot) => plot.cells));
  const alone = jobs.value.filter((job) => !ofPlots.has(job.id)).slice(0, SHOWN);
  if (!alone.length && !plots.value.length) return null;
  return (
    <nav class="recent" aria-label="Recent drawings">
      {plots.value.map((plot) => (
        <button
          type="button"
          class="recent-open plot"
          key={plot.id}
          aria-current={stageShows.value === "plot" && plot.id === shownPlot.value}
          title={`Grid: ${titleOf({ verb: plot.verb, request: plot.base })}`}
          onClick={() => show(plot.id)}
        >
          <Icon name="grid" />
          <span class="hidden">Grid: {titleOf({ verb: plot.verb, request: plot.base })}</span>
        </button>
      ))}
      {alone.map((job) => (
        <RecentJob key={job.id} job={job} />
      ))}
    </nav>
  );
}

function RecentJob({ job }: { job: Job }) {
  const first = job.pictures[0];
  const image = first ? thumbnailUrl(first) : previews.value[job.id];
  const title = `${verbWords(job.verb).name}: ${titleOf(job)}`;
  return (
    <div class="recent-job" data-state={job.state}>
      <button
        type="button"
        class="recent-open"
        aria-current={stageShows.value === "job" && job.id === shownJob.value?.id}
        title={title}
        onClick={() => showJob(job.id)}
      >
        {image ? (
          <img src={image} alt="" loading="lazy" />
        ) : (
          <Icon name={job.state === "failed" ? "close" : job.verb} />
        )}
        <span class="hidden">
          {title} {STATES[job.state]}
        </span>
      </button>
      {isUnfinished(job) && (
        <>
          <Progress share={job.steps ? job.step / job.steps : null} label={`Progress of ${title}`} />
          <IconButton icon="close" label={`Cancel ${title}`} onClick={() => void cancelJob(job.id)} />
        </>
      )}
    </div>
  );
}
