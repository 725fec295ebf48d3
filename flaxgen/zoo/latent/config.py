"""What a run of a diffusion model over an autoencoder's latents is, as plain values [Rombach22]."""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flaxgen.data import Data
from flaxgen.family.coded import check_plain
from flaxgen.family.denoising import Objective, check_objective, check_time_embedding
from flaxgen.family.process import Process, choose, make_schedule
from flaxgen.family.sampling import Sampling, Subject, make_grid
from flaxgen.nets.dit import DiT
from flaxgen.nets.mmdit import MMDiT
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.train.run import GradientRun

PRIOR = "prior_"
"""What names of a batch's fields begin with that are of class pictures."""
NO_PICTURE = 2**32 - 1
"""A number that no picture has, for another key."""
ROUNDING = 1e-3
"""How far single precision may put a time from its entry of a table, in entries."""
SIZES = "sizes"
"""The field of a batch with what a net reads of each picture's sizes, where they differ."""
WAVES = 256
"""How many channels each number of a picture's sizes becomes [Podell23, sec. 2.2]."""
SCALED_LINEAR = Process(schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
"""The noise of Stable Diffusion's versions 1, 2 and XL."""
FIRST = {"offset": 1, "final": "first"}
SOLVERS: dict[str, dict] = {
    "pndm": {"sampler": "plms", "grid": "leading", **FIRST},
    "ddim": {"sampler": "ddim", "grid": "leading", **FIRST},
    "euler": {"sampler": "euler", "grid": "leading", "offset": 1, "final": "zero"},
    "euler_a": {"sampler": "euler_ancestral", "grid": "leading", "offset": 1, "final": "zero"},
    "heun": {"sampler": "heun", "grid": "leading", "offset": 1, "final": "zero"},
    "dpmpp_2m": {"sampler": "dpmpp_2m", "grid": "leading_open", "offset": 1, "final": "zero"},
    "dpmpp_2m_karras": {"sampler": "dpmpp_2m", "grid": "karras", "offset": 0, "final": "zero"},
    "dpmpp_2m_sde": {"sampler": "dpmpp_2m_sde", "grid": "leading_open", "offset": 1, "final": "zero"},
    "dpmpp_2m_sde_karras": {"sampler": "dpmpp_2m_sde", "grid": "karras", "offset": 0, "final": "zero"},
    "unipc": {"sampler": "unipc", "grid": "leading_open", "offset": 1, "final": "zero"},
    "lcm": {"sampler": "lcm", "grid": "lcm", "offset": 0, "final": "zero"},
}
"""Samplers by the names that users of Stable Diffusion know, each with the times that it walks there."""
FLOW = Process(schedule="rectified_flow", timesteps=0, prediction="flow")
"""The straight paths of Stable Diffusion 3, on which the noise is the time."""
FLOW_SOLVERS: dict[str, dict] = {
    name: {"sampler": name, "grid": "flow", "offset": 0, "final": "zero"} for name in ("euler", "heun", "dpmpp_2m")
}
"""Those for straight paths."""


@dataclass(frozen=True)
class Text:
    """Which states of the text encoders a net reads: those `skip` blocks before the last one's, through the final norm
    where `normed`. Unless `masked` it reads padding like words. With `zero_empty` what says nothing is zeros, and not
    what is said of the empty caption. `pooled` says whether a caption's embedding is that of the "last" text encoder,
    or those of "all", one behind the other. With `t5_places` so many states of a T5 follow those of the others, zeros
    where there is none, and zeros make all of the width that the net reads [Esser24, sec. 4]."""

    skip: int = 0
    normed: bool = True
    masked: bool = False
    zero_empty: bool = False
    pooled: Literal["last", "all"] = "last"
    t5_places: int = 0

    def __post_init__(self):
        require(self.skip >= 0, f"skip={self.skip}: expected 0 (the last block's states) or more")
        require(self.t5_places >= 0, f"t5_places={self.t5_places}: expected 0 (no T5) or more")
        require(
            not (self.masked and self.t5_places), "masked=True: a T5's places are read as they are, set t5_places=0"
        )


@dataclass(frozen=True)
class ImageEmbedding:
    """How a net reads the embedding of a picture by a CLIP. "vector": beside a caption's states, with noise of `noise`'
    table on it, of a level that the net is told [Stability23]. "token": alone, in place of a caption's states
    [Pinkney22]."""

    place: Literal["vector", "token"] = "vector"
    noise: Process = Process(schedule="cosine")

    def __post_init__(self):
        choose("place", self.place, dict.fromkeys(("vector", "token")))
        require(self.noise.timesteps > 0, "noise.timesteps=0: expected a table, whose entries are the levels")


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A run on the latents of `data` by the autoencoder in that directory, with captions' states by the text encoders
    in the directories `clip`, `clip_2` and `t5` ("": none), of `context` tokens, kept in `cache` ("": there). What the
    net reads follows from its fields: `token_dim` are the states' width (of two encoders, together), `vector_dim` that
    of the embedding and WAVES for each of `sizes` numbers about the picture's size, `num_classes`
    labels. A net with 2 x 4 + 1 input channels, of 4 latent ones, is for inpainting: it also reads a mask and what lies
    outside it. Captions or labels are hidden from the share `objective.condition_dropout` of the examples. With
    `prior_data`, pictures of the class that those of `data` belong to, every example comes with one of these, and
    `prior_weight` times its loss is added, so that the class stays what it was [Ruiz23, eq. 2]. With `buckets`, sizes
    (height, width) such as `data.bucket_sizes(512)`, each picture fills the one whose aspect ratio is nearest, batches
    hold one of them each, and a net that reads sizes is told those of each picture [NovelAI22]. An imported net may
    read an `image_embedding`."""

    data: Data
    net: UNet | DiT | MMDiT
    autoencoder: str = ""
    clip: str = ""
    clip_2: str = ""
    t5: str = ""
    cache: str = ""
    prior_data: Data | None = None
    prior_weight: float = 1.0
    buckets: tuple[tuple[int, int], ...] = ()
    context: int = 77
    text: Text = Text()
    sizes: Literal[0, 5, 6] = 0
    image_embedding: ImageEmbedding | None = None
    process: Process = SCALED_LINEAR
    objective: Objective = Objective(condition_dropout=0.1)
    sampling: Sampling = Sampling(steps=50, guidance=7.5, threshold="none", batch=8)

    def __post_init__(self):
        super().__post_init__()
        net = self.net
        for data in (self.data, self.prior_data or self.data):
            check_plain(data)
        require(not self.t5 or self.text.t5_places > 0, "t5 is set, and text.t5_places=0: say how many places it has")
        sides = [side for size in self.buckets for side in size]
        unlike = len(set(self.buckets)) == len(self.buckets)
        require(
            unlike and all(side > 0 for side in sides), f"buckets={self.buckets}: expected sizes above 0, each once"
        )
        require(not (self.buckets and self.prior_data), "buckets and prior_data do not go together: leave one out")
        require(self.prior_weight > 0, f"prior_weight={self.prior_weight}: expected a number above 0")
        check_objective(self.objective, self.process, net.learned_variance)
        if isinstance(net, UNet):
            check_time_embedding(net.time_embedding, self.process)
        require(
            net.in_channels in (net.out_channels, 2 * net.out_channels + 1),
            f"net.in_channels={net.in_channels}: expected {net.out_channels} as net.out_channels, or "
            f"{2 * net.out_channels + 1} for inpainting",
        )
        require(
            not self.sizes or net.vector_dim > self.sizes * WAVES,
            f"net.vector_dim={net.vector_dim} holds an embedding and {WAVES} channels for each of sizes={self.sizes}",
        )
        _check_image_embedding(self)
        said = net.token_dim or net.vector_dim or net.num_classes > 1
        require(
            not self.objective.condition_dropout or bool(said),
            f"objective.condition_dropout={self.objective.condition_dropout} hides a condition, and this net has none: "
            "set net.token_dim, net.num_classes (one more than the classes), or the dropout to 0",
        )


def _check_image_embedding(config: Config) -> None:
    how, net = config.image_embedding, config.net
    if how is None:
        return
    require(not config.sizes, f"sizes={config.sizes}: a net with an image_embedding reads no sizes, expected 0")
    if how.place == "vector":
        require(net.vector_dim > 0 and net.vector_dim % 2 == 0, f"net.vector_dim={net.vector_dim}: expected twice the "
                "width of image_embedding, whose second half says how much noise there is")  # fmt: skip
        require(net.token_dim > 0, "net.token_dim=0: a net with an image_embedding in its vector reads captions too")
    else:
        alone = net.token_dim > 0 and not net.vector_dim
        require(alone, f"net.token_dim={net.token_dim} and net.vector_dim={net.vector_dim}: expected the width of "
                "image_embedding, which is the net's token, and 0")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BesideConfig(Config):
    """A run that trains something beside the net in the directory `base`, which has the same `net` and stays."""

    base: str = ""


def reads_text(config: Config) -> bool:
    """Whether the net reads captions."""
    how, net = config.image_embedding, config.net
    return bool(net.token_dim or net.vector_dim) and (how is None or (how.place == "vector" and net.token_dim > 0))


def imitates_guidance(config: Config) -> bool:
    """Whether the net was distilled to draw as if guided, and reads the scale [Meng23]."""
    return isinstance(config.net, UNet) and config.net.guidance_dim > 0


def fills_in(config: Config) -> bool:
    """Whether the net was made for inpainting, and reads a mask and what lies outside it."""
    return config.net.in_channels > config.net.out_channels


def tells_sizes(config: Config) -> bool:
    """Whether the net is told the sizes of each picture that it is trained on."""
    return bool(config.buckets) and config.sizes > 0


def of_class(config: Config) -> Config:
    """The config with the class pictures for its data."""
    return replace(config, data=config.prior_data or config.data, prior_data=None)


def num_labels(config: Config) -> int:
    """How many labels stand for a class."""
    return config.net.num_classes - bool(config.net.num_classes and config.objective.condition_dropout)


def latent_shape(config: Config) -> tuple[int, int, int]:
    """[h w D] of what is drawn."""
    return (config.net.image_size, config.net.image_size, config.net.out_channels)


def multiple(config: Config) -> int:
    """Of what the sides of a map of latents have to be multiples."""
    net = config.net
    return net.patch * 2 ** (len(net.multipliers) - 1) if isinstance(net, UNet) else net.patch


def condition_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of one example's condition: states of `context` tokens in half precision, as they are kept."""
    net, spec = config.net, {}
    if net.token_dim:
        places = config.context + config.text.t5_places
        spec["tokens"] = jax.ShapeDtypeStruct((places, net.token_dim), jnp.float16)
        if config.text.masked:
            spec["token_mask"] = jax.ShapeDtypeStruct((config.context,), jnp.bool_)
    if net.vector_dim:
        spec["vector"] = jax.ShapeDtypeStruct((net.vector_dim,), jnp.float32)
    if net.num_classes:
        spec["label"] = jax.ShapeDtypeStruct((), jnp.int32)
    return spec


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it: latents and their condition, and the same of class
    pictures. Those of buckets have other heights and widths."""
    height, width, channels = latent_shape(config)
    kinds = {"latent": jax.ShapeDtypeStruct((height, width, channels), jnp.float32), **condition_spec(config)}
    if tells_sizes(config):
        kinds[SIZES] = jax.ShapeDtypeStruct((config.sizes,), jnp.float32)
    if config.prior_data is not None:
        kinds |= {PRIOR + name: spec for name, spec in kinds.items()}
    size = config.batch_size
    return {name: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype) for name, spec in kinds.items()}


def solvers_of(process: Process) -> dict[str, dict]:
    """The samplers that such a process is drawn with."""
    return FLOW_SOLVERS if process.schedule == "rectified_flow" else SOLVERS


def with_solver(sampling: Sampling, name: str, solvers: dict[str, dict] = SOLVERS) -> Sampling:
    """The settings with another sampler, of `solvers`, and the times that go with it.

    Raises:
        ValueError: listing the samplers.
    """
    chosen = choose("sampler", name, solvers)
    same = sampling.grid == "trailing" and chosen["grid"] not in ("karras", "lcm")
    return replace(sampling, **({"sampler": chosen["sampler"]} if same else chosen))


def walked_times(
    config: Config, sampling: Sampling, strength: float = 1.0, span: tuple[float, float] = (0.0, 1.0)
) -> Float[np.ndarray, " N"]:
    """The times that are walked: of a picture that is varied the last int(strength * steps) steps, one at least; of
    these, steps that begin in the `span` of all time, which may be none.

    Raises:
        ValueError: if there are more steps than the table has.
    """
    subject = Subject(make_schedule(config.process), config.process.timesteps, (), cast(Any, None), None)
    times = make_grid(subject, sampling)[sampling.steps - max(int(sampling.steps * strength), 1) :]
    first, last = (_begun(times, config.process.timesteps, share) for share in span)
    return times[first : last + 1]


def _begun(times: Float[np.ndarray, " N"], timesteps: int, share: float) -> int:
    """How many steps begin before that share of all time is over, in a table counted as diffusers does."""
    if timesteps == 0:
        return int((times[:-1] > 1 - share).sum())
    return int((times[:-1] * timesteps - 1 >= round(timesteps * (1 - share)) - ROUNDING).sum())


def check_sampling(config: Config, sampling: Sampling) -> None:
    """Raises ValueError unless these settings can draw from such a model. The empty caption is one like others, which a
    net that is tuned may know without having read it in this run."""
    has_null = bool(config.objective.condition_dropout) or reads_text(config)
    require(
        sampling.guidance == 1 or has_null,
        f"guidance={sampling.guidance} needs a model trained with objective.condition_dropout, and this one was not",
    )
    walked_times(config, sampling)


def check_label(config: Config, label: int | None) -> None:
    """Raises ValueError unless it is a class that the net knows."""
    known = num_labels(config)
    require(label is None or known > 0, f"label={label}: this model knows no classes")
    require(label is None or label < known, f"label={label}: expected a class from 0 to {known - 1}")
