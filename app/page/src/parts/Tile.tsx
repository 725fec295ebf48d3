/** A picture among others: opens large, can be dragged to where pictures go, and marked to be compared. */

import { pictureUrl, thumbnailUrl } from "../api";
import { draggedPicture } from "../drag";
import { picked, togglePicked } from "../state/gallery";
import { open } from "../state/ui";
import { Icon } from "./icons";

interface TileProps {
  id: string;
  label: string;
  among: string[];
  isFavourite?: boolean;
  isWhole?: boolean;
}

export function Tile({ id, label, among, isFavourite = false, isWhole = false }: TileProps) {
  const isPicked = picked.value.includes(id);
  return (
    <div class="tile" data-picked={isPicked || undefined}>
      <button
        type="button"
        class="tile-open"
        onClick={() => open({ kind: "viewer", picture: id, among })}
        draggable
        onDragStart={draggedPicture(id)}
      >
        <img src={isWhole ? pictureUrl(id) : thumbnailUrl(id)} alt={label} loading="lazy" draggable={false} />
      </button>
      <button
        type="button"
        class="tile-pick"
        aria-pressed={isPicked}
        aria-label={`Compare: ${label}`}
        title="Compare"
        onClick={() => togglePicked(id)}
      >
        <Icon name={isPicked ? "check" : "compare"} />
      </button>
      {isFavourite && <span class="tile-star"><Icon name="star" filled /><span class="hidden">favourite</span></span>}
    </div>
  );
}
