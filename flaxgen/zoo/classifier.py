"""A classifier of noisy images, trained to guide a diffusion model of the same noise process [Dhariwal21, sec. 4]."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from flaxgen.data import Data, unit_range
from flaxgen.diffusion import losses, weighting
from flaxgen.diffusion.guidance import label_log_prob
from flaxgen.family.batches import read_batch
from flaxgen.family.denoising import make_apply
from flaxgen.family.extractor import Extractor
from flaxgen.family.family import Family
from flaxgen.family.process import Process, choose, make_schedule, make_time_input
from flaxgen.family.trained import Files, Trained
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.train.config import require
from flaxgen.train.optim import Optimizer
from flaxgen.train.run import GradientRun
from flaxgen.types import AlphaSigma, Condition, Loss, Params, PRNGKey


@dataclass(frozen=True, kw_only=True)
class Config(GradientRun):
    """A classifier run. `process` has to be that of the model it will guide."""

    data: Data
    net: NoisyClassifier = NoisyClassifier(num_classes=10)
    process: Process = Process()
    times: str = "table"
    optimizer: Optimizer = Optimizer(name="adamw", weight_decay=0.05)

    def __post_init__(self):
        super().__post_init__()
        choose("times", self.times, weighting.TIME_SAMPLING)
        require(self.process.timesteps > 0 or self.times != "table", "times=table needs process.timesteps above 0")


def image_shape(config: Config) -> tuple[int, int, int]:
    """[H W C] of what is classified."""
    return (config.net.image_size, config.net.image_size, config.net.in_channels)


def batch_spec(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch as the loader gives it."""
    size = config.batch_size
    return {
        "image": jax.ShapeDtypeStruct((size, *image_shape(config)), jnp.uint8),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


def init_params(config: Config, key: PRNGKey) -> Params:
    """Fresh parameters."""
    return config.net.init(key, jnp.zeros((1, *image_shape(config))), jnp.zeros(1))["params"]


def make_loss(config: Config, files: Files) -> Loss:
    """Cross-entropy of the label of a noised image."""
    schedule = make_schedule(config.process)
    return losses.per_example(
        losses.classification_loss(
            make_apply(config.net),
            schedule,
            make_time_input(config.process),
            sample_time=weighting.TIME_SAMPLING[config.times](schedule, config.process.timesteps),
            inputs=read_batch("image", ["label"]),
        )
    )


class Model(Trained):
    """A trained classifier, which guides the samples of a diffusion model."""

    config: Config

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[H W C] of what is classified."""
        return image_shape(self.config)

    @property
    def extractor(self) -> Extractor:
        """What it sees before its attention pools it, averaged over the picture, and its logits; of pictures without
        noise, at the first time of its process."""
        net, process, shape = self.config.net, self.config.process, self.image_shape
        time = 1 / process.timesteps if process.timesteps else 1e-3
        alpha, sigma = make_schedule(process)(time)
        time_input = make_time_input(process)(time, AlphaSigma(alpha, sigma))

        def apply(params, inputs):
            seen = inputs["image"].shape[1:]
            require(seen == shape, f"this classifier reads {shape}, these pictures are {seen}: set image_size")
            x = alpha * unit_range(inputs["image"])
            outputs: Any = net.apply(
                {"params": params},
                x,
                jnp.full(len(x), time_input, jnp.float32),
                capture_intermediates=lambda module, _: module.name == "norm_out",
                mutable=["intermediates"],
            )
            logits, state = outputs
            last = nn.silu(state["intermediates"]["norm_out"]["__call__"][0])
            return {"features": last.mean((1, 2)), "logits": logits}

        return Extractor(f"classifier:{self.fingerprint}", self.params, apply, has_classes=True)

    @staticmethod
    def make_log_prob(config: Config):
        """`log_prob(params, {"label": [B]})` is (x, t) -> log p(label | x_t) [B], for classifier guidance."""
        apply, schedule = make_apply(config.net), make_schedule(config.process)
        time_input = make_time_input(config.process)

        def log_prob(params: Params, target: Condition):
            def net(x, time, condition):
                return apply(params, x, time, {}, None)

            return label_log_prob(net, schedule, time_input, target["label"])

        return log_prob


FAMILY = Family(
    name="classifier",
    config=Config,
    init_params=init_params,
    batch_spec=batch_spec,
    make_loss=make_loss,
    classes=lambda config: config.net.num_classes,
    model=Model,
    extract=lambda model: model.extractor,
    instead="draws nothing, and guides a model by --classifier",
)
