/** A grid over two settings, its axes shared by all pictures. */

import { fileName, saveSheet } from "../download";
import { cancelJob, isUnfinished, jobOf } from "../state/jobs";
import { forget, type Plot, rowsOf } from "../state/plot";
import { fieldLabel, show, titleOf, verbWords } from "../words";
import { IconButton, Progress } from "./bits";
import { Tile } from "./Tile";

export function PlotView({ plot }: { plot: Plot }) {
  const columns = plot.x.values.length;
  const work = { model: plot.model, verb: plot.verb, request: plot.base };
  const found = plot.cells.map((cell) => (cell ? jobOf(cell)?.pictures[0] : undefined));
  const drawn = found.filter((id): id is string => id !== undefined);
  const waiting = plot.cells.filter((cell) => cell && jobOf(cell) && isUnfinished(jobOf(cell)!));
  const cancel = () => {
    forget(plot.id);
    waiting.forEach((cell) => cell && void cancelJob(cell));
  };
  return (
    <article class="job" aria-label={`Grid: ${titleOf(work)}`}>
      <header class="job-head">
        <div>
          <p class="over">{verbWords(plot.verb).name} · {plot.model} · {drawn.length} of {plot.cells.length}</p>
          <h2>{titleOf(work)}</h2>
        </div>
        <div class="job-tools">
          <IconButton
            icon="download" label="Download all as one sheet"
            isDisabled={drawn.length < plot.cells.length}
            onClick={() => void saveSheet(drawn, columns, `grid-${fileName(work)}`)}
          />
          <button type="button" class="button small quiet" onClick={cancel}>
            {waiting.length ? "Cancel the grid" : "Close the grid"}
          </button>
        </div>
      </header>
      {plot.error && <p class="notice error">{plot.error}</p>}
      <PlotTable plot={plot} among={drawn} />
    </article>
  );
}

function PlotTable({ plot, among }: { plot: Plot; among: string[] }) {
  const columns = plot.x.values.length;
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label="The grid">
      <table class="plot-table" style={{ "--columns": columns }}>
        <caption>
          Across: {fieldLabel(plot.x.field, plot.verb)}{plot.y && <> · Down: {fieldLabel(plot.y.field, plot.verb)}</>}
        </caption>
        <thead>
          <tr>
            {plot.y && <td />}
            {plot.x.values.map((value, i) => <th scope="col" key={i}>{show(value)}</th>)}
          </tr>
        </thead>
        <tbody>
          {rowsOf(plot).map((row, r) => (
            <tr key={r}>
              {plot.y && <th scope="row">{show(row)}</th>}
              {plot.x.values.map((column, c) => (
                <td key={c}>
                  <Cell
                    job={plot.cells[r * columns + c] ?? null}
                    among={among}
                    label={[column, ...(plot.y ? [row] : [])].map(show).join(", ")}
                  />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Cell({ job, label, among }: { job: string | null; label: string; among: string[] }) {
  const found = job ? jobOf(job) : undefined;
  const picture = found?.pictures[0];
  if (picture) return <Tile id={picture} label={label} among={among} />;
  if (found && !isUnfinished(found)) return <div class="tile empty" title={found.error ?? ""}>{found.state}</div>;
  const share = found?.state === "running" && found.steps ? found.step / found.steps : null;
  return <div class="tile empty">{found?.state === "running" && <Progress share={share} label={label} />}</div>;
}
