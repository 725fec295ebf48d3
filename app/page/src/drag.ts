/** Pictures that are dragged within the page carry their id under a type of their own. */

export const MARK = "application/x-flaxgen-picture";

export function draggedPicture(id: string): (event: DragEvent) => void {
  return (event) => {
    event.dataTransfer?.setData(MARK, id);
    if (event.dataTransfer) event.dataTransfer.effectAllowed = "copy";
  };
}

export function isOurs(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes(MARK) ?? false;
}
