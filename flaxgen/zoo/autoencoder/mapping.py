"""The latent space as a picture: examples in their places on a plane, and what the decoder draws all over it."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from flaxgen.data import open_source, to_pixels
from flaxgen.data.loader import element_at
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import option
from flaxgen.family.requests import OfPictures, data_of
from flaxgen.family.sheets import grid, plotted
from flaxgen.family.trained import Progress
from flaxgen.tokens.quantise import fit_pca
from flaxgen.train.config import require
from flaxgen.zoo.autoencoder.config import Config
from flaxgen.zoo.autoencoder.requests import pictures_of

METHODS = ("pca", "tsne", "umap")
SIDE = 10.0
"""Of the map, in hundreds of pixels."""
THUMBNAILS = 26
"""So many of them fit side by side."""
COLOURS = "tab20"
MOST_LABELS = 20
"""Of which the legend has a line."""
REACH = 2.0
"""How far the plane is walked, in standard deviations of the examples from their mean."""


@dataclass(frozen=True, kw_only=True)
class Map(OfPictures):
    """Draw the latent space as a map."""

    verb: ClassVar[str] = "map"
    examples: ClassVar[tuple[str, ...]] = (
        "flaxgen map runs/vae --num 1000 --out map.png",
        "flaxgen map runs/vqvae --method tsne --out map.png",
    )
    out: ClassVar[str] = "map.png"

    num: int = option(1000, "how many examples, where no pictures are named", least=4)
    method: str = option("pca", "how latents become two numbers", choices=METHODS)
    grid: int = option(15, "pictures a side of the grid that is walked through the plane of pca; 0 draws none", least=0)


class Plane(NamedTuple):
    """Where examples lie, with the share of the variance along each axis, and the plane itself: a point (a, b) of it is
    `mean` + a, b times `axes`. Only PCA has a plane."""

    places: Float[np.ndarray, "N 2"]
    shares: tuple[float, float] | None = None
    mean: np.ndarray | None = None
    axes: np.ndarray | None = None


def draw_map(model: Any, request: Map, progress: Progress) -> Pictures:
    """The map, and in `extra` the places of the examples, their labels and latents."""
    progress("encoding")
    images, labels, names = _labelled(model, request)
    has_codes = model.config.bottleneck.num_codes > 0
    latents = model.features(images) if has_codes else model.encode(images)
    require(len(latents) > 3, f"num={len(latents)}: a map needs 4 pictures or more")
    progress(f"finding places by {request.method}")
    plane = find_plane(latents.reshape(len(latents), -1), request.method, request.seed)
    panels = [lambda axes: _draw_places(axes, plane, images, labels, names, request.method)]
    if plane.mean is not None and request.grid:
        progress("decoding the plane")
        walked = _walk(model, plane, request.grid, latents.shape[1:], has_codes)
        panels.append(lambda axes: _draw_walk(axes, plane, walked))
    extra = {"places": plane.places, "latents": latents, **({} if labels is None else {"labels": labels})}
    return Pictures(plotted(panels, SIDE)[None], extra=extra)


def check_map(config: Config, request: Map) -> None:
    """Raises ValueError unless there are pictures and the method is installed."""
    if not request.images:
        open_source(data_of(config, request))
    _library(request.method)


def _labelled(model: Any, request: Map) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """Pictures with their labels and the names of these, where the data know them."""
    if request.images:
        return pictures_of(model, request), None, None
    source = open_source(data_of(model.config, request))
    places = [element_at(len(source), 0, i) for i in range(min(request.num, len(source)))]
    found = [source[place] for place in places]
    labels = np.array([example["label"] for example in found]) if "label" in found[0] else None
    return np.stack([example["image"] for example in found]), labels, getattr(source, "class_names", None)


def find_plane(latents: Float[np.ndarray, "N D"], method: str, seed: int) -> Plane:
    """Two numbers for each of the latents: principal components, or what the libraries of t-SNE [Maaten08] and UMAP
    [McInnes18] find.

    Raises:
        ValueError: if the library is not installed.
    """
    if method == "pca":
        mean, axes = fit_pca(latents, 2)
        places = (latents - mean[None]) @ axes
        shares = places.var(0) / max(latents.var(0).sum(), 1e-30)
        return Plane(places.astype(np.float32), (float(shares[0]), float(shares[1])), mean, axes)
    kind = _library(method)
    more: dict[str, Any] = {"perplexity": min(30.0, (len(latents) - 1) / 3)} if method == "tsne" else {}
    return Plane(np.asarray(kind(n_components=2, random_state=seed, **more).fit_transform(latents), np.float32))


def _library(method: str) -> Any:
    try:
        if method == "tsne":
            from sklearn.manifold import TSNE

            return TSNE
        if method == "umap":
            from umap import UMAP  # pyright: ignore[reportMissingImports]

            return UMAP
    except ImportError as error:
        package = {"tsne": "scikit-learn", "umap": "umap-learn"}[method]
        raise ValueError(f"method={method} comes with {package}: pip install {package}, or take pca") from error
    return None


def _walk(model: Any, plane: Plane, side: int, shape: tuple[int, ...], has_codes: bool) -> np.ndarray:
    """Pictures of a grid of points of the plane, from its upper left, as one picture."""
    assert plane.mean is not None
    assert plane.axes is not None
    reach = REACH * plane.places.std(0)
    across, up = (np.linspace(-far, far, side) for far in reach)
    points = np.stack(np.meshgrid(across, up[::-1]), -1).reshape(-1, 2)
    latents = (plane.mean[None] + points @ plane.axes.T).astype(np.float32).reshape(-1, *shape)
    drawn = model.decode_features(latents) if has_codes else model.decode(latents)
    return grid(to_pixels(drawn), columns=side, gap=1)


def _draw_places(axes, plane: Plane, images, labels, names, method: str) -> None:
    """Every example as a dot, and as many as find room as thumbnails in frames of their label's colour."""
    from matplotlib import colormaps

    colours = colormaps[COLOURS]
    of = (lambda i: colours(labels[i] % colours.N)) if labels is not None else (lambda i: "0.4")
    axes.scatter(*plane.places.T, s=6, color=[of(i) for i in range(len(images))], zorder=1)
    low, high = plane.places.min(0), plane.places.max(0)
    width, height = np.maximum(high - low, 1e-6) / THUMBNAILS
    taken = np.empty((0, 2))
    for i, (x, y) in enumerate(plane.places):
        if (np.abs(taken - (x, y)) < (width, height)).all(1).any():
            continue
        taken = np.concatenate((taken, [(x, y)]))
        box = (x - width * 0.46, x + width * 0.46, y - height * 0.46, y + height * 0.46)
        image = images[i] if images.shape[-1] == 3 else np.repeat(images[i], 3, -1)
        axes.imshow(image, extent=box, aspect="auto", interpolation="nearest", zorder=2)
        left, right, bottom, top = box
        axes.plot(
            [left, right, right, left, left], [bottom, bottom, top, top, bottom], color=of(i), linewidth=1.5, zorder=3
        )
    axes.set_xlim(low[0] - width, high[0] + width)
    axes.set_ylim(low[1] - height, high[1] + height)
    title = f"{len(images)} examples by {method}"
    if plane.shares is not None:
        title += "; the axes are {:.0%} and {:.0%} of the variance".format(*plane.shares)
    axes.set_title(title)
    if labels is not None and len(known := np.unique(labels)) <= MOST_LABELS:
        for label in known:
            axes.scatter([], [], color=colours(label % colours.N), label=names[label] if names else str(label))
        axes.legend(loc="upper right")


def _draw_walk(axes, plane: Plane, walked) -> None:
    """What is decoded all over the plane, in the places that it is of."""
    x, y = REACH * plane.places.std(0)
    axes.imshow(walked, extent=(-x, x, -y, y), aspect="auto", interpolation="nearest")
    axes.set_title(f"decoded, {REACH:g} standard deviations each way")
