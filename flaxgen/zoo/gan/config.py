"""What a run of two nets against each other is, as plain values, and what follows from them: shapes, fields, labels."""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp

from flaxgen.data import Data
from flaxgen.family.evaluation import Periodic, check_every
from flaxgen.family.process import choose
from flaxgen.gan.augment import PIPES, POLICIES
from flaxgen.gan.losses import LOSSES
from flaxgen.nets import dcgan, gan_mlp, stylegan2, stylegan2_discriminator
from flaxgen.train.config import require
from flaxgen.train.optim import Optimizer
from flaxgen.train.run import Run

ADAM = Optimizer(learning_rate=2e-3, beta1=0.0, beta2=0.99, clip=0.0)
"""NVlabs' [Karras20b]: no momentum, no clipping."""


@dataclass(frozen=True)
class Regularizers:
    """Weights of penalties, 0 for none. On the discriminator: `r1` and `r2` are gamma, of gamma / 2 |grad D|^2 at real
    examples and at fakes [Mescheder18]; `lines` that of (|grad D| - 1)^2 on lines between the two [Gulrajani17]. They
    are part of the loss where `interval` is 1, and else a step of their own every so many steps. On the generator:
    `path_length`, every `path_interval` steps, on the `path_shrink`-th part of a batch [Karras20, sec. 3.2]."""

    r1: float = 0.0
    r2: float = 0.0
    lines: float = 0.0
    interval: int = 1
    path_length: float = 0.0
    path_interval: int = 4
    path_decay: float = 0.01
    path_shrink: int = 2

    def __post_init__(self):
        for name in ("r1", "r2", "lines", "path_length"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)}: expected 0 (none) or more")
        for name in ("interval", "path_interval", "path_shrink"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: expected 1 or more")
        require(0 < self.path_decay <= 1, f"path_decay={self.path_decay}: expected a share above 0, at most 1")

    @property
    def of_discriminator(self) -> bool:
        """Whether there is any on the discriminator."""
        return max(self.r1, self.r2, self.lines) > 0


@dataclass(frozen=True)
class HalfLife:
    """The generator's average forgets half of what is `images` images old, or `ramp` times the images seen so far where
    that is less (0: no ramp) [Karras20b]. `images=0` averages nothing."""

    images: int = 10_000
    ramp: float = 0.05

    def __post_init__(self):
        require(self.images >= 0, f"images={self.images}: expected 0 (no average) or more")
        require(self.ramp >= 0, f"ramp={self.ramp}: expected 0 (none) or more")


@dataclass(frozen=True)
class Augmentation:
    """What the discriminator sees instead of pictures, real and drawn. `pipe` is one of NVlabs' sets, such as bgc
    [Karras20b], at first with `probability`, which follows the mean sign of D(real) to `target` (0: it stays) at a rate
    that takes it from 0 to 1 in `images` images. `policy` is DiffAugment's, such as color,translation,cutout, always
    on [Zhao20]. An empty name is none."""

    pipe: str = ""
    probability: float = 0.0
    target: float = 0.6
    interval: int = 4
    images: int = 500_000
    policy: str = ""

    def __post_init__(self):
        require(not self.pipe or self.pipe in PIPES, f"pipe={self.pipe!r}: expected one of {', '.join(PIPES)}, or none")
        for name in filter(None, self.policy.split(",")):
            require(name in POLICIES, f"policy={self.policy!r}: expected some of {','.join(POLICIES)}, or none")
        require(not (self.pipe and self.policy), f"pipe={self.pipe!r} and policy={self.policy!r}: set one of them")
        require(0 <= self.probability <= 1, f"probability={self.probability}: expected a number in [0, 1]")
        require(-1 <= self.target <= 1, f"target={self.target}: expected a mean sign in [-1, 1], 0 for none")
        require(self.interval >= 1, f"interval={self.interval}: expected 1 or more")
        require(self.images > 0, f"images={self.images}: expected 1 or more")


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: w comes nearer to its mean with `truncation` psi below 1; the generator's `noise` is what
    it learned with, drawn for each picture, or that of its buffers. At most `batch` are drawn at once."""

    truncation: float = 1.0
    noise: Literal["constant", "random"] = "constant"
    batch: int = 64

    def __post_init__(self):
        require(self.batch >= 1, f"batch={self.batch}: expected 1 or more")

    def kind(self) -> "Sampling":
        """What has to be compiled: these settings without those that may change freely."""
        return replace(self, truncation=1.0)


@dataclass(frozen=True, kw_only=True)
class Config(Run):
    """A run of a generator against a discriminator. A step reads `batch_size` examples, on `d_steps` equal parts of
    which the discriminator makes a step each; the generator makes one, with as many latents as a part has. Styles of
    two latents are mixed with probability `style_mixing` [Karras18]. The run stops when the running share of gradients
    that are no numbers passes `max_nan_share`. Every `evaluate_every` steps (0: never), and after the last, the
    averaged generator is measured as `evaluation` says."""

    data: Data
    generator: stylegan2.Generator | dcgan.Generator | gan_mlp.Generator
    discriminator: stylegan2_discriminator.Discriminator | dcgan.Discriminator | gan_mlp.Discriminator
    loss: str = "non_saturating"
    d_steps: int = 1
    style_mixing: float = 0.0
    generator_optimizer: Optimizer = ADAM
    discriminator_optimizer: Optimizer = ADAM
    regularizers: Regularizers = Regularizers()
    average: HalfLife = HalfLife()
    augmentation: Augmentation = Augmentation()
    max_nan_share: float = 0.01
    sampling: Sampling = Sampling()
    evaluate_every: int = 0
    evaluation: Periodic = Periodic()

    def __post_init__(self):
        super().__post_init__()
        choose("loss", self.loss, LOSSES)
        require(
            self.d_steps >= 1 and self.batch_size % self.d_steps == 0,
            f"d_steps={self.d_steps}: expected a divisor of batch_size={self.batch_size}",
        )
        require(0 <= self.style_mixing <= 1, f"style_mixing={self.style_mixing}: expected a probability in [0, 1]")
        require(0 < self.max_nan_share <= 1, f"max_nan_share={self.max_nan_share}: expected a share above 0, at most 1")
        check_every(self.evaluate_every, draws_pictures(self))
        _check_nets(self)

    @property
    def net(self):
        """What is kept of a run: the generator."""
        return self.generator


TYPE_NAMES = {
    "StyleGAN2": stylegan2.Generator,
    "StyleGAN2Discriminator": stylegan2_discriminator.Discriminator,
    "DCGAN": dcgan.Generator,
    "DCGANDiscriminator": dcgan.Discriminator,
    "GanMLP": gan_mlp.Generator,
    "GanMLPDiscriminator": gan_mlp.Discriminator,
    "GanSampling": Sampling,
}
"""What nested types are called in a config.json."""


def _check_nets(config: Config) -> None:
    generator, discriminator = config.generator, config.discriminator
    drawn, judged = _shape(generator), _shape(discriminator)
    require(drawn == judged, f"the generator draws {drawn}, the discriminator judges {judged}: set them alike")
    require(
        generator.num_classes == discriminator.num_classes,
        f"generator.num_classes={generator.num_classes} and discriminator.num_classes={discriminator.num_classes}: "
        "both read the same label, set them alike",
    )
    require(
        not (config.regularizers.lines and isinstance(discriminator, dcgan.Discriminator))
        or discriminator.norm != "batch",
        "regularizers.lines needs a discriminator that looks at examples one by one: set discriminator.norm=layer",
    )
    require(
        has_styles(config) or not (config.style_mixing or config.regularizers.path_length),
        f"style_mixing={config.style_mixing} and regularizers.path_length={config.regularizers.path_length} need a "
        "generator with a w, such as StyleGAN2: set both to 0",
    )


def has_styles(config: Config) -> bool:
    """Whether the generator has a w between latents and pictures."""
    return isinstance(config.generator, stylegan2.Generator)


def draws_pictures(config: Config) -> bool:
    """Whether it draws pictures, and not points."""
    return len(example_shape(config)) == 3


def example_shape(config: Config) -> tuple[int, ...]:
    """[H W C] of a picture, [D] of a point."""
    return _shape(config.generator)


def _shape(net) -> tuple[int, ...]:
    if isinstance(net, gan_mlp.Generator | gan_mlp.Discriminator):
        return net.shape
    return (net.image_size, net.image_size, net.channels)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it: what is drawn first, then the label."""
    size = config.batch_size
    field, dtype = ("image", jnp.uint8) if draws_pictures(config) else ("point", jnp.float32)
    spec = {field: jax.ShapeDtypeStruct((size, *example_shape(config)), dtype)}
    return spec | ({"label": jax.ShapeDtypeStruct((size,), jnp.int32)} if config.generator.num_classes else {})


def check_sampling(config: Config, sampling: Sampling) -> None:
    """Raises ValueError unless these settings can draw from such a model."""
    styled = has_styles(config)
    require(
        styled or sampling.truncation == 1,
        f"truncation={sampling.truncation} needs a generator with a w, such as StyleGAN2, and this one has none",
    )
    require(styled or sampling.noise == "constant", f"noise={sampling.noise} is of StyleGAN2, and this one has none")
