"""ControlNets as runs: a copy of a net's way down learns to steer it by hints, and the net stays as it is [Zhang23]."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.data import FREE, Data
from flaxgen.family.coded import check_plain
from flaxgen.family.companions import Joined
from flaxgen.family.family import Family
from flaxgen.family.matching import open_matching
from flaxgen.family.pictures import Pictures
from flaxgen.family.request import InputPicture
from flaxgen.family.trained import Files
from flaxgen.nets.controlnet import ControlNet
from flaxgen.nets.unet import UNet
from flaxgen.train import optim, state
from flaxgen.train.config import require
from flaxgen.types import Held, Loss, Params, PRNGKey, Source, TrainState
from flaxgen.weights import controlnet
from flaxgen.weights.tree import leaves_of, unflatten
from flaxgen.zoo.latent import control, drawing, family, model
from flaxgen.zoo.latent.config import BesideConfig, num_labels, reads_text
from flaxgen.zoo.latent.config import batch_spec as net_batch_spec
from flaxgen.zoo.latent.edges import edges
from flaxgen.zoo.latent.requests import DrawLatent

HINT, CHANNELS = "hint", 3
SHOWN = 4
"""Hints that a preview shows, each with a picture."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig(BesideConfig):
    """A run whose parameters are a ControlNet of the net in the directory `base`, which has the same `net`. Its hints
    are the edges of the pictures or, with `hint_data`, as many other pictures in the same order. `hint_widths` are the
    channels on the way from a hint to the size of latents, half as large at each but the first."""

    hint_data: Data | None = None
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)

    def __post_init__(self):
        super().__post_init__()
        kind = type(self.net).__name__
        require(isinstance(self.net, UNet), f"net is a {kind}: expected a UNet, which ControlNets steer")
        require(self.prior_data is None, "prior_data is set: a ControlNet is trained without class pictures")
        require(not self.buckets, "buckets are set: a ControlNet is trained on squares, as its hints are")
        require(bool(self.hint_widths), "hint_widths is empty: expected the channels of at least one size")
        if self.hint_data is not None:
            check_plain(self.hint_data)
            size, other = self.data.image_size, self.hint_data.image_size
            require(size == other, f"hint_data.image_size={other}: expected {size}, as data.image_size")

    @property
    def control(self) -> ControlNet:
        """The net that is trained."""
        unet: Any = self.net
        return ControlNet(unet=unet, hint_channels=CHANNELS, hint_widths=self.hint_widths)


def init_params(config: ControlConfig, key: PRNGKey) -> Params:
    """Fresh parameters of the ControlNet, for their shapes, and for what is no copy of the net."""
    return controlnet.init_params(config.control, key)


def copied(fresh: Params, net: Params) -> Params:
    """The parameters of a ControlNet with all that the net has too in place of its own: it begins as a copy of the way
    down, and what it adds as 0 [Zhang23, sec. 3.1]."""
    own, others = leaves_of(fresh), leaves_of(net)
    return unflatten({path: others.get(path, leaf) for path, leaf in own.items()})


def batch_spec(config: ControlConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """As the net's, and the hints."""
    size = config.data.image_size
    shape = (config.batch_size, size, size, CHANNELS)
    return {**net_batch_spec(config), HINT: jax.ShapeDtypeStruct(shape, jnp.uint8)}


def make_loss(config: ControlConfig, files: Files) -> Loss:
    """The loss of the net, whose weights are the state's frozen ones, with what the ControlNet adds."""
    net: Any = config.net

    def apply(params, x, time, condition, dropout_key):
        said = model.read_condition({name: value for name, value in condition.items() if name != HINT})
        hint = condition[HINT].astype(jnp.float32) / 255
        added = config.control.apply({"params": params["control"]}, x, time, hint, **said)
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        more = {"residuals": added, "train": dropout_key is not None, "rngs": rngs}
        return net.apply({"params": params["net"]}, x, time, **said, **more)

    of_both = model.make_loss_of(config, files, apply, (HINT,))

    def loss(params, batch, keys, held=Held()):  # noqa: B008
        return of_both({"control": params, "net": held.frozen}, batch, keys)

    return loss


def make_training(config: ControlConfig, files: Files) -> tuple[Any, Any]:
    """As of all runs that follow a gradient, from the copy of the net."""
    fresh, tx = functools.partial(init_params, config), optim.make_optimizer(config.optimizer, config.steps)
    decay = optim.make_ema_decay(config.ema)
    loss = make_loss(config, files)
    _, make_step = state.make_training(fresh, loss, tx, ema_decay=decay, accumulate=config.accumulate)

    def init(key: PRNGKey) -> TrainState:
        # copies, as a step is given its state for good; outside of jit, whose constants frozen weights would become
        frozen = jax.tree.map(jnp.array, family.base_params(config, key))
        return state.init_state(jax.tree.map(jnp.array, copied(jax.jit(fresh)(key), frozen)), tx, Held(frozen=frozen))

    return init, make_step


def prepare(config: ControlConfig, found: Files) -> Files:
    """The small files of the net, and its name.

    Raises:
        ValueError: as `family.prepare_beside`, or if the ControlNet does not fit.
    """
    prepared = family.prepare_beside(config, found)
    control.check_fits(config.control, config.net, family.load_autoencoder(config).config.net.factor)
    return prepared


def open_source(own: Family, config: ControlConfig, files: Files) -> Source:
    """Latents and captions' states of the pictures, with their hints.

    Raises:
        ValueError: if there are not as many hints.
    """
    latents, hints = family.open_source(own, config, files), open_hints(config)
    require(len(latents) == len(hints), f"hint_data has {len(hints)} pictures and data {len(latents)}: expected one "
            "for each, in the same order")  # fmt: skip
    return Joined((latents, dict), (hints, functools.partial(hint_of, find_edges=config.hint_data is None)))


def open_hints(config: ControlConfig) -> Source:
    """The pictures that are hints, or whose edges are."""
    data, size = config.hint_data or config.data, config.data.image_size
    return open_matching(data, {"image": (size, size, data.channels)}, 0)


def hint_of(example: Mapping[str, Any], find_edges: bool) -> dict[str, np.ndarray]:
    """The hint in an example of `open_hints`."""
    pixels = example["image"]
    return {HINT: edges(pixels) if find_edges else np.broadcast_to(pixels, (*pixels.shape[:2], CHANNELS))}


def steered(run: Any) -> drawing.Parts:
    """What draws with a run's ControlNet.

    Raises:
        ValueError: if the net is not there, or not the one that it was trained with.
    """
    config, parts = run.config, family.parts_of_run(family.base_of(run))
    described = control.Config(seed=0, steps=1, batch_size=1, data=config.data, net=config.control)
    return parts._replace(controlnet=control.FAMILY.trained(described, run.params, run.step, run.plan))


def preview(run: Any, key: PRNGKey) -> np.ndarray:
    """The first hints, each with a picture of its caption."""
    parts, hints = steered(run), open_hints(run.config)
    seed, shown = int(jax.random.randint(key, (), 0, 2**31 - 1)), []
    for index in range(min(SHOWN, len(hints))):
        hint = hint_of(hints[index], run.config.hint_data is None)[HINT]
        asked = DrawLatent(captions=(hints[index].get("text", ""),), num=1, seed=seed, hint=InputPicture(hint))
        shown += [hint, drawing.draw(parts, asked, lambda stage: None).images[0]]
    return Pictures(np.stack(shown)).sheet()


def check(config: ControlConfig) -> None:
    """Raises ValueError unless the net can be drawn from as the config says, and reads captions."""
    family.FAMILY.check(config)
    require(reads_text(config), "this net reads no captions, which hints go with: choose one that does")


CONTROL = Family(
    name="latent_control",
    config=ControlConfig,
    type_name="LatentControl",
    init_params=init_params,
    batch_spec=batch_spec,
    make_training=make_training,
    classes=num_labels,
    check=check,
    open_source=open_source,
    prepare=prepare,
    files=family.BESIDE_FILES,
    companions=family.BESIDE_COMPANIONS,
    free=family.BESIDE_FREE | {f"hint_data.{name}" for name in FREE},
    preview=preview,
    requests={
        kind: family.alone(answer, steered, control.NAMES[:1])
        for kind, answer in family.ANSWERS.items()
        if kind.verb != "sample"
    },
)
