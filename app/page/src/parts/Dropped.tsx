/** A picture that was dropped or pasted: the request in it, and what it can be used for. */

import { drawAgain } from "../actions";
import { pictureUrl } from "../api";
import type { StoredRequest, Upload } from "../types";
import { captionOf, verbWords } from "../words";
import { Modal } from "./bits";
import { Icon } from "./icons";
import { Uses } from "./Viewer";

export function Dropped({ upload, stored }: { upload: Upload; stored: StoredRequest | null }) {
  return (
    <Modal title="A picture of yours">
      <div class="dropped">
        <img src={pictureUrl(upload.id)} alt="The picture that was dropped" />
        <div>
          <p class="hint">{upload.width} × {upload.height}</p>
          {stored ? (
            <>
              <p>
                It was drawn by <strong>{stored.model}</strong> ({verbWords(stored.verb).name})
                {captionOf(stored.request) && <>: “{captionOf(stored.request)}”</>}.
              </p>
              <button type="button" class="button primary" onClick={() => void drawAgain(stored)}>
                <Icon name="again" />Take its settings
              </button>
            </>
          ) : (
            <p>It carries no request, so it can be an input only.</p>
          )}
          <h3>Use it to</h3>
          <Uses picture={upload.id} />
        </div>
      </div>
    </Modal>
  );
}
