/** What the server says and is told: the shapes of its JSON. */

export type Value = string | number | boolean | null | Value[];
export type Values = Record<string, Value>;

export interface Model {
  name: string;
  family: string;
  description: string;
  examples: string[];
  size: [number, number] | null;
  verbs: string[];
  loaded: boolean;
}

export interface FieldSchema {
  type: "string" | "integer" | "number" | "boolean" | "array";
  description?: string;
  format?: "picture" | "mask";
  items?: FieldSchema;
  enum?: (string | number)[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  default?: Value;
  "x-advanced"?: boolean;
  "x-default"?: string;
}

export interface VerbSchema {
  title: string;
  properties: Record<string, FieldSchema>;
  required: string[];
}

export interface Verb {
  schema: VerbSchema;
  /** Captions, or the fields of a whole request. */
  examples: (string | Values)[];
}

export type Verbs = Record<string, Verb>;

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

export interface Job {
  id: string;
  model: string;
  verb: string;
  request: Values;
  state: JobState;
  position: number | null;
  step: number;
  steps: number;
  error: string | null;
  pictures: string[];
  created: number | string;
  started: number | string | null;
  finished: number | string | null;
  parent: string | null;
}

export interface Picture {
  id: string;
  job: string | null;
  model: string;
  verb: string;
  request: Values;
  index: number;
  width: number;
  height: number;
  favourite: boolean;
  created: number | string;
  parent: string | null;
  kind: "drawn" | "upload";
}

export interface Upload {
  id: string;
  width: number;
  height: number;
}

export interface History {
  ancestors: Picture[];
  children: Picture[];
}

export interface StoredRequest {
  model: string;
  verb: string;
  request: Values;
}

export interface Preview {
  job: string;
  step: number;
  steps: number;
  png: string;
}

export interface Status {
  version: string;
  device: string;
  queue: number;
  user: string;
}

export const UNFINISHED: readonly JobState[] = ["queued", "running"];
