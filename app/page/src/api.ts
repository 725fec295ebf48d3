/** The server's routes as functions; every failure is an `ApiError`, whose message can be shown. */

import type {
  History, Job, Model, Picture, Status, StoredRequest, Upload, Values, Verbs,
} from "./types";

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    /** The field of the request that is meant, if any. */
    readonly param: string | null = null,
    /** Seconds after which to try again, if the server says so. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

const OFFLINE = "The studio does not answer. Is it still running?";

async function call(method: string, path: string, body?: unknown): Promise<Response> {
  const isBytes = body instanceof Blob;
  const headers: Record<string, string> = method === "GET" ? {} : { "X-Flaxgen": "1" };
  if (body !== undefined) headers["Content-Type"] = isBytes ? body.type : "application/json";
  let reply: Response;
  try {
    reply = await fetch(path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: isBytes ? body : JSON.stringify(body) }),
    });
  } catch {
    throw new ApiError(OFFLINE, 0);
  }
  if (!reply.ok) throw await errorOf(reply);
  return reply;
}

async function errorOf(reply: Response): Promise<ApiError> {
  const after = Number(reply.headers.get("Retry-After")) || null;
  try {
    const { error } = await reply.json();
    return new ApiError(String(error.message), reply.status, error.param ?? null, after);
  } catch {
    return new ApiError(`${reply.status} ${reply.statusText}`, reply.status, null, after);
  }
}

async function json<T>(method: string, path: string, body?: unknown): Promise<T> {
  return (await call(method, path, body)).json() as Promise<T>;
}

const id = encodeURIComponent;

function query(values: Record<string, string | number | null | undefined>): string {
  const kept = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return kept.length ? `?${new URLSearchParams(kept.map(([name, value]) => [name, String(value)]))}` : "";
}

export interface GalleryQuery {
  search?: string;
  favourite?: 1 | null;
  verb?: string;
  before?: string | null;
  limit?: number;
}

export interface JobRequest {
  model: string;
  verb: string;
  request: Values;
  parent: string | null;
}

/** An uploaded picture has no model, verb and request: empty ones spare everybody else the question. */
function whole(picture: Picture): Picture {
  return { ...picture, model: picture.model ?? "", verb: picture.verb ?? "", request: picture.request ?? {} };
}

export const api = {
  session: (token: string) => call("POST", "/api/session", { token }),
  status: () => json<Status>("GET", "/api/status"),
  models: async () => (await json<{ models: Model[] }>("GET", "/api/models")).models,
  verbs: (model: string) => json<Verbs>("GET", `/api/models/${id(model)}/verbs`),
  upload: (file: Blob) => json<Upload>("POST", "/api/pictures", file),
  read: (file: Blob) => json<StoredRequest>("POST", "/api/read", file),
  submit: (job: JobRequest) => json<Job>("POST", "/api/jobs", job),
  jobs: async (limit = 40) => (await json<{ jobs: Job[] }>("GET", `/api/jobs${query({ limit })}`)).jobs,
  job: (job: string) => json<Job>("GET", `/api/jobs/${id(job)}`),
  cancel: (job: string) => json<Job>("POST", `/api/jobs/${id(job)}/cancel`),
  gallery: async (asked: GalleryQuery) => {
    const path = `/api/gallery${query({ limit: 60, ...asked })}`;
    const page = await json<{ pictures: Picture[]; next: string | null }>("GET", path);
    return { ...page, pictures: page.pictures.map(whole) };
  },
  info: async (picture: string) => whole(await json<Picture>("GET", `/api/pictures/${id(picture)}/info`)),
  history: async (picture: string) => {
    const { ancestors, children } = await json<History>("GET", `/api/pictures/${id(picture)}/history`);
    return { ancestors: ancestors.map(whole), children: children.map(whole) };
  },
  favourite: async (picture: string, favourite: boolean) =>
    whole(await json<Picture>("POST", `/api/pictures/${id(picture)}/favourite`, { favourite })),
  remove: (picture: string) => call("DELETE", `/api/pictures/${id(picture)}`),
  pictureBytes: async (picture: string) => (await call("GET", pictureUrl(picture))).blob(),
};

export const pictureUrl = (picture: string) => `/api/pictures/${id(picture)}`;
export const thumbnailUrl = (picture: string) => `/api/pictures/${id(picture)}/thumbnail`;
