/** Values that outlive a refresh, in the browser's own storage: drafts and tastes, never what the server knows. */

import { effect, signal, type Signal } from "@preact/signals";

const PREFIX = "flaxgen.";

export function kept<T>(name: string, otherwise: T, storage: Storage = localStorage): Signal<T> {
  const value = signal(read(name, otherwise, storage));
  effect(() => {
    try {
      storage.setItem(PREFIX + name, JSON.stringify(value.value));
    } catch {
      // A full or forbidden storage only costs the memory of drafts.
    }
  });
  return value;
}

function read<T>(name: string, otherwise: T, storage: Storage): T {
  try {
    const text = storage.getItem(PREFIX + name);
    return text === null ? otherwise : (JSON.parse(text) as T);
  } catch {
    return otherwise;
  }
}
