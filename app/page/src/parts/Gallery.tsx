/** All pictures that were drawn or uploaded, with search; pictures that are marked can be compared. */

import { useEffect, useRef } from "preact/hooks";

import { loadMore, next, ofVerb, onlyFavourites, picked, pictures, search } from "../state/gallery";
import { verbNames } from "../state/models";
import { open } from "../state/ui";
import type { Picture } from "../types";
import { titleOf, verbWords } from "../words";
import { IconButton } from "./bits";
import { Icon } from "./icons";
import { Tile } from "./Tile";

export function Gallery() {
  return (
    <section class="panel gallery" aria-label="Gallery">
      <h2 class="panel-title">Gallery</h2>
      <GalleryTools />
      <GalleryGrid />
      {picked.value.length > 0 && <Tray />}
    </section>
  );
}

function GalleryTools() {
  return (
    <div class="gallery-tools" role="search">
      <label class="search">
        <Icon name="search" />
        <span class="hidden">Search the gallery</span>
        <input
          id="search"
          type="search"
          placeholder="Search"
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
        />
      </label>
      <select
        class="input"
        aria-label="Drawn by"
        value={ofVerb.value}
        onChange={(event) => (ofVerb.value = event.currentTarget.value)}
      >
        <option value="">All</option>
        {verbNames.value.map((name) => <option key={name} value={name}>{verbWords(name).name}</option>)}
      </select>
      <IconButton
        icon="star"
        label="Favourites only"
        isPressed={onlyFavourites.value}
        onClick={() => (onlyFavourites.value = !onlyFavourites.value)}
      />
    </div>
  );
}

export function labelOf(picture: Picture): string {
  return picture.kind === "upload" ? "An uploaded picture" : `${titleOf(picture)}, ${picture.index + 1}`;
}

function GalleryGrid() {
  const found = pictures.value;
  if (!found) return <div class="gallery-scroll" />;
  const isFiltered = Boolean(search.value || ofVerb.value || onlyFavourites.value);
  if (!found.length)
    return <p class="gallery-empty">{isFiltered ? "Nothing matches." : "What you draw is kept here."}</p>;
  const ids = found.map((picture) => picture.id);
  return (
    <div class="gallery-scroll">
      <ul class="gallery-grid">
        {found.map((picture) => (
          <li key={picture.id}>
            <Tile id={picture.id} label={labelOf(picture)} among={ids} isFavourite={picture.favourite} />
          </li>
        ))}
      </ul>
      {next.value !== null && <More />}
    </div>
  );
}

/** Loads the next page when it comes into view, or when it is pressed. */
function More() {
  const ref = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && void loadMore());
    if (ref.current) watcher.observe(ref.current);
    return () => watcher.disconnect();
  }, []);
  return <button type="button" ref={ref} class="button quiet" onClick={() => void loadMore()}>More</button>;
}

function Tray() {
  const count = picked.value.length;
  return (
    <div class="tray">
      <button
        type="button"
        class="button small primary"
        disabled={count < 2}
        onClick={() => open({ kind: "compare", pictures: picked.value })}
      >
        {count < 2 ? "Mark another to compare" : `Compare ${count}`}
      </button>
      <button type="button" class="button small quiet" onClick={() => (picked.value = [])}>Clear</button>
    </div>
  );
}
