/** Pictures that are dropped or pasted anywhere on the page. */

import { signal } from "@preact/signals";

import { takeFile } from "./actions";
import { isOurs } from "./drag";

/** Whether a file hovers over the page. */
export const isHovering = signal(false);

export function watchDrops(): void {
  const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") && !isOurs(event);
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    isHovering.value = true;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) isHovering.value = false;
  });
  document.addEventListener("drop", (event) => {
    isHovering.value = false;
    const file = event.dataTransfer?.files[0];
    if (!hasFiles(event) || !file) return;
    event.preventDefault();
    void takeFile(file);
  });
  // A well that takes the drop itself stops it on its way here.
  document.addEventListener("drop", () => (isHovering.value = false), { capture: true });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    void takeFile(file);
  });
}
