/** Chooses an input picture from the gallery or from disk. */

import { upload } from "../actions";
import { thumbnailUrl } from "../api";
import { loadMore, next, pictures } from "../state/gallery";
import { close } from "../state/ui";
import { Modal } from "./bits";
import { labelOf } from "./Gallery";

export function Picker({ title, choose }: { title: string; choose: (picture: string) => void }) {
  const take = (picture: string | null) => {
    if (!picture) return;
    choose(picture);
    close();
  };
  const found = pictures.value ?? [];
  return (
    <Modal title={title}>
      <label class="button file">
        From a file
        <input
          type="file"
          class="hidden"
          accept="image/png,image/jpeg,image/webp"
          onChange={async (event) => {
            const file = event.currentTarget.files?.[0];
            if (file) take(await upload(file));
          }}
        />
      </label>
      {found.length === 0 && <p class="hint">The gallery is empty: draw something first, or choose a file.</p>}
      <ul class="gallery-grid picker">
        {found.map((picture) => (
          <li key={picture.id}>
            <button type="button" class="tile tile-open" onClick={() => take(picture.id)}>
              <img src={thumbnailUrl(picture.id)} alt={labelOf(picture)} loading="lazy" />
            </button>
          </li>
        ))}
      </ul>
      {next.value !== null && <button type="button" class="button quiet" onClick={() => void loadMore()}>More</button>}
    </Modal>
  );
}
