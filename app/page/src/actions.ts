/** What buttons, keys and drops do: each changes the state or asks the server, and says what went wrong. */

import { ApiError, api } from "./api";
import {
  clearErrors, draft, fieldErrors, formError, hasNewSeeds, lacking, randomSeed, request, setDraft, setField,
} from "./state/draft";
import { dropPicture, refreshGallery, replacePicture } from "./state/gallery";
import { forgetPicture, loadJobs, showJob, takeJob } from "./state/jobs";
import { mask, maskField, reopenMask, uploadMask } from "./state/mask";
import { chooseModel, chooseVerb, model, models, pictureField, schema, verb } from "./state/models";
import { announce, close, closeAll, dialog, note, noteError, open, pane, stageShows } from "./state/ui";
import type { Picture, StoredRequest, Values } from "./types";
import { fieldLabel, verbWords } from "./words";

/** Sends the form as a job. */
export async function draw(): Promise<void> {
  const [asked, of] = [model.value, schema.value];
  if (!asked || !of) return;
  clearErrors();
  if (hasNewSeeds.value && "seed" in of.properties) setField("seed", randomSeed());
  const missing = { ...lacking(draft.value, of), ...lackingMask() };
  if (Object.keys(missing).length) return showErrors(missing);
  try {
    const values = await withMask(request(draft.value, of));
    const job = await api.submit({ model: asked.name, verb: verb.value, request: values, parent: parentOf(values) });
    takeJob(job);
    showJob(job.id);
    pane.value = "stage";
    announce("Sent. Drawing begins when its turn comes.");
  } catch (error) {
    showRefusal(error);
  }
}

function lackingMask(): Record<string, string> {
  const field = maskField();
  return field && mask.value?.isEmpty ? { [field]: "Paint over what is to be drawn anew." } : {};
}

async function withMask(values: Values): Promise<Values> {
  const field = maskField();
  return field && mask.value ? { ...values, [field]: await uploadMask(mask.value) } : values;
}

/** The picture that a request starts from: its first one. */
export function parentOf(values: Values): string | null {
  const field = pictureField(verb.value);
  const value = field ? values[field] : null;
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" ? first : null;
}

function showErrors(errors: Record<string, string>): void {
  fieldErrors.value = errors;
  pane.value = "make";
  announce(Object.entries(errors).map(([name, text]) => `${fieldLabel(name, verb.value)}: ${text}`).join(" "));
  const first = Object.keys(errors)[0];
  // Once the message is there, its field is where the user should be.
  requestAnimationFrame(() => document.querySelector<HTMLElement>(`[data-field="${first}"] [data-focus]`)?.focus());
}

function showRefusal(error: unknown): void {
  if (!(error instanceof ApiError)) return noteError(error);
  const names = schema.value?.properties ?? {};
  if (error.param && error.param in names) return showErrors({ [error.param]: error.message });
  formError.value = refusalText(error);
  announce(formError.value);
}

export function refusalText(error: ApiError): string {
  if (error.status !== 429) return error.message;
  return error.retryAfter ? `${error.message} Try again in ${error.retryAfter} s.` : error.message;
}

/** Puts a picture where a verb takes one, and shows that verb. */
export function useAsInput(picture: string, asked: string, which = 0): void {
  chooseVerb(asked);
  const field = pictureField(asked, which);
  if (!field) return;
  const isMany = schema.value?.properties[field]?.type === "array";
  setField(field, isMany ? [picture] : picture);
  if (asked === "inpaint") stageShows.value = "canvas";
  closeAll();
  pane.value = asked === "inpaint" ? "stage" : "make";
  announce(`${fieldLabel(field)} of ${verbWords(asked).name} is set.`);
}

/** Fills the form with a request that was drawn before. */
export async function drawAgain(stored: StoredRequest): Promise<void> {
  try {
    if (models.value?.some((one) => one.name === stored.model)) await chooseModel(stored.model);
    else note(`The model ${stored.model} is not here; its settings are kept as far as this one has them.`);
    chooseVerb(stored.verb);
    reopenMask();
    setDraft(onlyIds(stored.request));
    closeAll();
    pane.value = "make";
    if (maskField()) stageShows.value = "canvas";
    announce("The form has the settings of that picture.");
  } catch (error) {
    noteError(error);
  }
}

/** A file's request says of its inputs only what they were; of a job's request they are ids. */
function onlyIds(values: Values): Values {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => typeof value !== "object" || value === null || Array.isArray(value)),
  );
}

/** Uploads a file; the id, or null if it could not be read. */
export async function upload(file: Blob): Promise<string | null> {
  try {
    return (await api.upload(file)).id;
  } catch (error) {
    noteError(error);
    return null;
  }
}

/** A picture that was dropped or pasted: what it was drawn with is read, and what it may be used for is offered. */
export async function takeFile(file: File): Promise<void> {
  if (!file.type.startsWith("image/")) return note(`${file.name} is no picture.`, true);
  try {
    const [uploaded, stored] = await Promise.all([
      api.upload(file),
      file.type === "image/png" ? api.read(file).catch(() => null) : null,
    ]);
    open({ kind: "dropped", upload: uploaded, stored });
    void refreshGallery();
  } catch (error) {
    noteError(error);
  }
}

export async function setFavourite(picture: Picture, isFavourite: boolean): Promise<Picture> {
  try {
    const changed = await api.favourite(picture.id, isFavourite);
    replacePicture(changed);
    announce(isFavourite ? "Added to favourites." : "Removed from favourites.");
    return changed;
  } catch (error) {
    noteError(error);
    return picture;
  }
}

const REGRET = 6_000; // ms in which a deletion can be taken back

/** Deletes a picture after a while in which this can be undone; it disappears at once. */
export function remove(picture: string): void {
  if (dialog.value?.kind === "viewer") close();
  dropPicture(picture);
  forgetPicture(picture);
  const timer = setTimeout(() => {
    api.remove(picture).catch((error) => (noteError(error), refreshGallery()));
  }, REGRET);
  const undo = () => {
    clearTimeout(timer);
    void refreshGallery();
    void loadJobs().catch(noteError);
  };
  note("Picture deleted.", false, { label: "Undo", run: undo });
  announce("Picture deleted.");
}
