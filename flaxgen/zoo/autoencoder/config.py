"""What an autoencoder's run is, as plain values, and what follows from them: shapes and fields."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from flaxgen.data import Data
from flaxgen.family.bottlenecks import Bottleneck, Gaussian
from flaxgen.family.codebooks import Codebook, Finite, Gumbel, Signs
from flaxgen.family.codec import OVERLAP
from flaxgen.family.levels import BOTTOM, TOP, Levels
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.nets.dense_autoencoder import DenseAutoencoder
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.nets.vqvae import VqVae
from flaxgen.nets.vqvae2 import VqVae2
from flaxgen.train.config import require
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.train.run import GradientRun
from flaxgen.weights.autoencoder_config import Latents

DISCRETE = ("gaussian", "logistic")
"""Losses that are a probability of the pixels' values, and so count bits."""


@dataclass(frozen=True)
class Reconstruction:
    """How far a drawn picture is from the one it stands for, as a mean over its numbers.

    `squared` and `absolute` differences are divided by `variance`: 2 s^2 makes the former a Gaussian's nats, the data's
    own variance makes it normalised [vdOord17]. `gaussian` and `logistic` are -log of the probability of each value,
    one of `levels` in [-1, 1], with a scale a channel that is learned [Rybkin21], or one for each pixel if the net has
    twice as many `out_channels` as the picture; `logit_laplace` is DALL-E's density, which needs these [Ramesh21].
    With `learn_variance` a difference d, perceptual ones included, costs d / e^s + s, of which s is learned from 0 on
    [Rombach22, their code].
    """

    loss: Literal["squared", "absolute", "gaussian", "logistic", "logit_laplace"] = "squared"
    variance: float = 1.0
    levels: int = 256
    learn_variance: bool = False

    def __post_init__(self):
        require(self.variance > 0, f"variance={self.variance}: expected a number above 0")
        require(
            not self.learn_variance or self.loss in ("squared", "absolute"),
            f"learn_variance={self.learn_variance} is for loss=squared and loss=absolute: a probability, as "
            f"loss={self.loss} is one, has scales of its own",
        )
        require(2 <= self.levels <= 256, f"levels={self.levels}: expected 2 to 256")


@dataclass(frozen=True)
class Perceptual:
    """The net that pictures are compared through, and what that distance weighs beside that of pixels.

    `net` is "none", "lpips:FILE", the published distance of five depths of VGG16 [Zhang18], in the safetensors that
    `flaxgen/weights/lpips.py` says how to make, or "clip:MODEL" or "classifier:MODEL", a run or model directory, of
    which the features are compared.
    """

    net: str = "none"
    weight: float = 1.0

    def __post_init__(self):
        kind, _, path = self.net.partition(":")
        expected = "expected none, lpips:FILE, clip:MODEL or classifier:MODEL"
        require(kind != "inception", f"net={self.net}: Inception reads 8-bit pictures, which have no gradient; "
                f"{expected}")  # fmt: skip
        known = self.net == "none" or (kind in ("lpips", "clip", "classifier") and bool(path))
        require(known, f"net={self.net!r}: {expected}")
        require(self.weight > 0, f"weight={self.weight}: expected a number above 0; net=none compares pixels alone")


@dataclass(frozen=True)
class Adversary:
    """Whom an autoencoder plays against besides, "none" or "patches": a discriminator of patches, so that what is drawn
    looks real from near [Esser21, sec. 3.1].

    `width`, `depth` and `norm` are those of `nets.patchgan.PatchDiscriminator`. The game is the hinge's, of which the
    discriminator minimises half, and begins after `start` steps for both. What the decoder is told by it weighs
    `weight` times the ratio of two gradients at its last layer, that of the reconstruction over that of the game, which
    counts at most `most` [Esser21, eq. 7]. Where losses are sums over a picture, as in latent diffusion's code, the
    ratio is larger by its numbers: divide their bound of 1e4 by these.
    """

    net: Literal["none", "patches"] = "none"
    width: int = 64
    depth: int = 3
    norm: Literal["batch", "layer", "none"] = "batch"
    weight: float = 0.8
    most: float = 1e4
    start: int = 0
    optimizer: Optimizer = Optimizer(learning_rate=4.5e-6, beta1=0.5, beta2=0.9, clip=0.0)

    def __post_init__(self):
        require(self.weight > 0, f"weight={self.weight}: expected a number above 0; net=none plays no game")
        require(self.most > 0, f"most={self.most}: expected a number above 0")
        require(self.start >= 0, f"start={self.start}: expected 0 or more steps")
        require(self.width >= 1, f"width={self.width}: expected 1 or more")
        require(self.depth >= 1, f"depth={self.depth}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A run of an autoencoder. With `noise` it learns to undo noise of that standard deviation, in units of [-1, 1],
    which is added to what it reads [Vincent08]. `latents` is how a model that works on its latents scales them. At most
    `batch` pictures are drawn at once."""

    data: Data
    net: VqVae | VqVae2 | DenseAutoencoder | Autoencoder | TinyAutoencoder | DalleVae
    latents: Latents = Latents()
    bottleneck: Gaussian | Codebook | Gumbel | Finite | Signs | Levels | Bottleneck = Codebook()
    reconstruction: Reconstruction = Reconstruction()
    perceptual: Perceptual = Perceptual()
    adversary: Adversary = Adversary()
    noise: float = 0.0
    batch: int = 64
    ema: Ema = Ema(decay=0.999)

    def __post_init__(self):
        super().__post_init__()
        require(self.noise >= 0, f"noise={self.noise}: expected 0 (none) or more")
        require(self.batch >= 1, f"batch={self.batch}: expected 1 or more")
        net, bottleneck, loss = self.net, self.bottleneck, self.reconstruction.loss
        channels, out = net.in_channels, net.out_channels or net.in_channels
        able = {"logit_laplace": (2,), "squared": (1,), "absolute": (1,)}.get(loss, (1, 2))
        require(
            out in [channels * times for times in able],
            f"net.out_channels={out}: reconstruction.loss={loss} of {channels} channels needs "
            f"{' or '.join(str(channels * times) for times in able)}",
        )
        kind, width = type(bottleneck).__name__, bottleneck.width
        require(
            net.code_dim == net.latent_dim * (1 + bottleneck.moments),
            f"net.code_dim={net.code_dim} with net.latent_dim={net.latent_dim}: a {kind} bottleneck needs "
            f"{'twice' if bottleneck.moments else 'just'} as many; set net.moments={bottleneck.moments}",
        )
        require(
            width in (0, net.latent_dim),
            f"net.latent_dim={net.latent_dim}: a {kind} bottleneck of this kind needs {width}",
        )
        require(
            isinstance(net, VqVae2) == isinstance(bottleneck, Levels),
            f"a {type(net).__name__} net with a {kind} bottleneck: a VqVae2 has two maps, for which "
            "bottleneck=Levels() has a codebook each, and no other net has",
        )
        if self.adversary.net != "none":
            self._check_adversary()

    def _check_adversary(self) -> None:
        size, multiple = self.net.image_size, 2**self.adversary.depth
        require(
            size % multiple == 0 and size >= 3 * multiple,
            f"adversary.depth={self.adversary.depth} halves pictures to 3 pixels or more, and net.image_size={size} "
            "cannot be: lower it",
        )
        require(
            self.accumulate == 1,
            f"accumulate={self.accumulate}: with an adversary a batch is taken whole, as the weight of the game is one "
            "of all examples; set accumulate=1",
        )


TYPE_NAMES = {"Plain": Bottleneck, "AutoencoderNet": Autoencoder}
"""What nested types are called in a config.json, where it is not their own name."""


def image_shape(config: Config) -> tuple[int, int, int]:
    """[H W C] of a picture."""
    return (config.net.image_size, config.net.image_size, config.net.in_channels)


def of_levels(config: Config) -> bool:
    """Whether a picture becomes two maps, a top and a bottom one."""
    return isinstance(config.bottleneck, Levels)


def sides_of(config: Config) -> dict[str, int]:
    """How many codes a side each map has, by name."""
    net = config.net
    if isinstance(net, VqVae2):
        return {TOP: net.image_size // net.top_factor, BOTTOM: net.image_size // net.factor}
    return {"codes": net.image_size // net.factor}


def says_scales(config: Config) -> bool:
    """Whether the decoder gives a scale for every number of a picture beside its value."""
    return config.net.out_channels == 2 * config.net.in_channels


def latent_shape(config: Config) -> tuple[int, int, int]:
    """[h w D] of what the decoder reads."""
    side = config.net.image_size // config.net.factor
    return (side, side, config.net.latent_dim)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    return {"image": jax.ShapeDtypeStruct((config.batch_size, *image_shape(config)), jnp.uint8)}


def check_tile(config: Config, tile: int) -> None:
    """Raises ValueError unless the net takes tiles of so many pixels, 0 for none."""
    require(not (tile and of_levels(config)), f"tile={tile}: a net of two levels takes pictures whole, leave it out")
    least = OVERLAP * config.net.factor
    fits = tile == 0 or (tile >= least and tile % config.net.factor == 0)
    require(fits, f"tile={tile}: expected 0 (none), or a multiple of {config.net.factor} pixels from {least} on")


def check_size(config: Config, height: int, width: int, what: str = "a picture") -> None:
    """Raises ValueError unless the net takes pictures of this size as they are, naming sizes near to it."""
    net, size = config.net, config.net.image_size
    factor = net.top_factor if isinstance(net, VqVae2) else net.factor
    if isinstance(config.net, DenseAutoencoder):
        require((height, width) == (size, size), f"{what} of {width}x{height}: this net takes {size}x{size} alone")
    near = [{max(side // factor, 1) * factor, -(-side // factor) * factor} for side in (width, height)]
    smaller, larger = (f"{pick(near[0])}x{pick(near[1])}" for pick in (min, max))
    others = smaller if smaller == larger else f"{smaller} or {larger}"
    require(
        height % factor == 0 and width % factor == 0,
        f"{what} of {width}x{height}: the sides have to be multiples of {factor}, the nearest are {others}",
    )
