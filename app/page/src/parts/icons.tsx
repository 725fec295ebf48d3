/** The icons, drawn as strokes of a 24 px square. They say nothing to screen readers: their buttons do. */

const PATHS = {
  draw: "M4 20l4-1L19 8l-3-3L5 16zM14 7l3 3",
  sample: "M12 3v5M12 16v5M3 12h5M16 12h5M6 6l2.500 2.500M15.500 15.500L18 18M18 6l-2.500 2.500M8.500 15.500L6 18",
  vary: "M4 7h6l6 10h4M4 17h6l2-3.3M14.5 9.7L16 7h4M18 4l3 3-3 3M18 14l3 3-3 3",
  blend: "M9 6a6 6 0 100 12A6 6 0 009 6zM15 6a6 6 0 100 12 6 6 0 000-12z",
  edit: "M4 7V5h9v2M8.500 5v12M6.500 17h4M15 12h5M18 9.500l2.500 2.500L18 14.500",
  inpaint: "M14 4l6 6-8 7-5-5zM7 12c-3 1-2 5-4 7 4 1 8 0 9-2",
  outpaint: "M8 8h8v8H8zM12 5V2M12 22v-3M5 12H2M22 12h-3",
  upscale: "M4 14v6h6M20 10V4h-6M4 20l7-7M20 4l-7 7",
  interpolate: "M3 12c3-8 6-8 9 0s6 8 9 0",
  reconstruct: "M4 12a8 8 0 0113-6l3 2M20 4v4h-4M20 12a8 8 0 01-13 6l-3-2M4 20v-4h4",
  project: "M12 3v4M12 17v4M3 12h4M17 12h4M12 8.500a3.500 3.500 0 100 7 3.500 3.500 0 000-7z",
  star: "M12 4l2.400 5.200 5.600.600-4.200 3.800 1.200 5.600L12 16.400 7 19.200l1.200-5.600L4 9.800l5.600-.600z",
  again: "M5 12a7 7 0 107-7c-2.500 0-4.500 1.200-6 3M5 4v4h4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5",
  download: "M12 4v11M7 10.500l5 5 5-5M5 20h14",
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 2-2 5 4M15.500 9.500h.01",
  dice: "M5 5h14v14H5zM9 8.2a.8.8 0 100 1.600.8.8 0 000-1.600zM15 14.2a.8.8 0 100 1.600.8.8 0 000-1.600zM15 8.2a.8.8 0 100 1.600.8.8 0 000-1.600zM9 14.2a.8.8 0 100 1.600.8.8 0 000-1.600zM12 11.2a.8.8 0 100 1.600.8.8 0 000-1.600z",
  sun: "M12 8a4 4 0 100 8 4 4 0 000-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600L19 19M19 5l-1.400 1.400M6.400 17.600L5 19",
  moon: "M19 14.500A8 8 0 019.500 5 8 8 0 1019 14.500z",
  help: "M9 9.500a3 3 0 116 0c0 2-3 2.200-3 4.500M12 17.500h.01",
  request: "M9 4c-3 0-3 1-3 3v2c0 2-1 3-2 3 1 0 2 1 2 3v2c0 2 0 3 3 3M15 4c3 0 3 1 3 3v2c0 2 1 3 2 3-1 0-2 1-2 3v2c0 2 0 3-3 3",
  search: "M11 5a6 6 0 100 12 6 6 0 000-12zM15.500 15.500L20 20",
  grid: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z",
  compare: "M12 3v18M4 6h5v12H4M20 6h-5v12h5",
  eraser: "M9 19l-5-5L14 4l6 6-9 9zM8.500 9.500l6 6M6 19h14",
  hand: "M8 13V6.500a1.500 1.500 0 013 0V11 5a1.500 1.500 0 013 0v6-4.500a1.500 1.500 0 013 0V14c0 4-2 6.500-5.500 6.500S7 18 5 14.500C4 12.500 6 11.500 8 14",
  undo: "M8 5L4 9l4 4M4 9h10a5.500 5.500 0 010 11h-3",
  redo: "M16 5l4 4-4 4M20 9H10a5.500 5.500 0 000 11h3",
  invert: "M12 4a8 8 0 100 16zM12 4a8 8 0 010 16",
  expand: "M8 8h8v8H8zM12 5V2M12 22v-3M5 12H2M22 12h-3",
  play: "M8 5l11 7-11 7z",
  pause: "M8 5v14M16 5v14",
  swap: "M7 4L3 8l4 4M3 8h14M17 12l4 4-4 4M21 16H7",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  gallery: "M4 8h16v12H4zM7 4.500h10M4 17l5-4 4 3 3-2 4 3",
  check: "M5 12.500l4.500 4.500L19 7.500",
  tree: "M6 4v12a3 3 0 003 3h9M6 9h12M6 4h.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, filled = false }: { name: string; filled?: boolean }) {
  const path = PATHS[(name in PATHS ? name : "draw") as IconName];
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" data-filled={filled || undefined}>
      <path d={path} />
    </svg>
  );
}
