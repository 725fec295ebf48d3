/** The middle of the page: what is drawn, the canvas that a mask is painted on, a grid, or a welcome. */

import { shownJob } from "../state/jobs";
import { mask, maskField } from "../state/mask";
import { verb } from "../state/models";
import { plots, shownPlot } from "../state/plot";
import { stageShows } from "../state/ui";
import { Segments } from "./bits";
import { JobView } from "./JobView";
import { MaskEditor } from "./MaskEditor";
import { PlotView } from "./PlotView";
import { Recent } from "./Recent";
import { InpaintWelcome, Welcome } from "./Welcome";

export function Stage() {
  const hasCanvas = verb.value !== "" && maskField() !== null;
  return (
    <section class="stage" aria-label="Pictures">
      {hasCanvas && shownJob.value && (
        <div class="stage-switch">
          <Segments
            label="What is shown"
            value={stageShows.value === "canvas" ? "canvas" : "job"}
            options={[["canvas", "Canvas"], ["job", "Result"]]}
            choose={(shows) => (stageShows.value = shows)}
          />
        </div>
      )}
      <div class="stage-main"><Shown hasCanvas={hasCanvas} /></div>
      <Recent />
    </section>
  );
}

function Shown({ hasCanvas }: { hasCanvas: boolean }) {
  const plot = plots.value.find((one) => one.id === shownPlot.value);
  if (stageShows.value === "plot" && plot) return <PlotView plot={plot} />;
  const job = shownJob.value;
  if (hasCanvas && (stageShows.value === "canvas" || !job))
    return mask.value ? <MaskEditor key={mask.value.picture} mask={mask.value} /> : <InpaintWelcome />;
  return job ? <JobView job={job} /> : <Welcome />;
}
