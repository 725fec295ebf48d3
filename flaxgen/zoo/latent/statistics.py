"""The small files beside the weights of a net over latents: what latents and embeddings are scaled by."""

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from flaxgen import bounded_json
from flaxgen.family.trained import Files
from flaxgen.train.config import require
from flaxgen.weights.autoencoder_config import Latents

SCALES = "latents.json"
"""The small file with the mean and deviation of latents that a net was trained on."""
STATISTICS = "embeddings.safetensors"
"""That with the `mean` and `std` [D] of the embeddings that a net reads with noise."""
LABELS = "labels.json"
"""That with the names of classes by their numbers, where an imported net has them."""


def scales_of(files: Files) -> Latents | None:
    """The mean and deviation that a trained net keeps of latents, None where it keeps none.

    Raises:
        ValueError: if the file is damaged.
    """
    if SCALES not in files:
        return None
    try:
        stored = bounded_json.loads(files[SCALES])
        return Latents(latents_mean=tuple(map(float, stored["mean"])), latents_std=tuple(map(float, stored["std"])))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{SCALES} is damaged: expected the mean and std of each channel") from error


def statistics_of(files: Files, width: int) -> dict[str, Float[np.ndarray, " D"]]:
    """The mean and the deviation of embeddings in float32; see `stored_statistics`."""
    return {name: value.astype(np.float32) for name, value in stored_statistics(files, width).items()}


def stored_statistics(files: Files, width: int) -> dict[str, Float[np.ndarray, " D"]]:
    """The mean and the deviation of embeddings in the dtype in which they came, 0 and 1 where nothing is said of them.

    Raises:
        ValueError: if the file is damaged, or of embeddings of another width.
    """
    if STATISTICS not in files:
        return {"mean": np.zeros(width, np.float32), "std": np.ones(width, np.float32)}
    try:
        found = safetensors.numpy.load(files[STATISTICS])
    except safetensors.SafetensorError as error:
        raise ValueError(f"{STATISTICS} is damaged: {error}") from error
    shapes = {name: value.shape for name, value in found.items()}
    expected = dict.fromkeys(("mean", "std"), (width,))
    require(shapes == expected, f"{STATISTICS} has {shapes}: expected {expected}")
    return found


def write_statistics(mean: Float[np.ndarray, " D"], std: Float[np.ndarray, " D"]) -> Files:
    """The file that `statistics_of` reads."""
    named = {"mean": mean, "std": std}
    return {STATISTICS: safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in named.items()})}
