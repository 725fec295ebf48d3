/** Where an input picture goes: dropped, pasted, chosen from disk or from the gallery. */

import { useRef, useState } from "preact/hooks";

import { upload } from "../actions";
import { thumbnailUrl } from "../api";
import { draggedPicture, MARK } from "../drag";
import { IconButton } from "../parts/bits";
import { Icon } from "../parts/icons";
import { open } from "../state/ui";

interface WellProps {
  id: string;
  label: string;
  picture: string | null;
  change: (picture: string | null) => void;
  described?: string | undefined;
  isInvalid?: boolean;
}

export function PictureWell(props: WellProps) {
  const { label, picture, change } = props;
  const [isOver, setOver] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const take = async (file: Blob | undefined) => {
    if (!file) return;
    setBusy(true);
    const id = await upload(file);
    setBusy(false);
    if (id) change(id);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    event.stopPropagation();
    setOver(false);
    const id = event.dataTransfer?.getData(MARK);
    if (id) change(id);
    else void take(event.dataTransfer?.files[0]);
  };
  return (
    <div
      class="well"
      data-over={isOver || undefined}
      data-full={picture ? true : undefined}
      data-busy={isBusy || undefined}
      onDragOver={(event) => (event.preventDefault(), setOver(true))}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      {picture ? (
        <Chosen picture={picture} label={label} remove={() => change(null)} />
      ) : (
        <span class="well-empty">
          <Icon name="image" />
          <span>{isBusy ? "Reading …" : "Drop a picture"}</span>
        </span>
      )}
      <WellButtons {...props} take={take} />
    </div>
  );
}

function Chosen({ picture, label, remove }: { picture: string; label: string; remove: () => void }) {
  const alt = `${label}: the chosen picture`;
  return (
    <>
      <img src={thumbnailUrl(picture)} alt={alt} draggable onDragStart={draggedPicture(picture)} />
      <div class="well-tools">
        <IconButton icon="close" label={`${label}: remove`} onClick={remove} />
      </div>
    </>
  );
}

function WellButtons({ id, label, change, described, isInvalid, take }: WellProps & { take: (file?: Blob) => void }) {
  const file = useRef<HTMLInputElement>(null);
  const pick = () => open({ kind: "picker", title: `${label}: choose a picture`, choose: change });
  return (
    <div class="well-buttons">
      <button
        type="button"
        id={id}
        data-focus
        class="button small"
        aria-describedby={described}
        aria-invalid={isInvalid}
        onClick={pick}
      >
        Gallery<span class="hidden">: {label}</span>
      </button>
      <button type="button" class="button small" onClick={() => file.current?.click()}>
        File<span class="hidden">: {label}</span>
      </button>
      <input
        ref={file}
        type="file"
        hidden
        accept="image/png,image/jpeg,image/webp"
        aria-label={`${label}: a file`}
        onChange={(event) => {
          take(event.currentTarget.files?.[0]);
          event.currentTarget.value = ""; // the same file may be chosen again
        }}
      />
    </div>
  );
}
