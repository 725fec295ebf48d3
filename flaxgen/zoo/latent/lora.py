"""LoRAs as runs: factors beside the kernels of a net over latents are trained, and the net stays as it is [Hu22]."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.family.family import Family
from flaxgen.family.trained import Files
from flaxgen.nets.unet import UNet
from flaxgen.train.config import require
from flaxgen.types import Held, Loss, Params, PRNGKey
from flaxgen.weights.lora import Factors, merge
from flaxgen.weights.lora_names import module_of
from flaxgen.weights.tree import leaves_of, unflatten
from flaxgen.zoo.latent import drawing, family, model
from flaxgen.zoo.latent.adapt import UNET, merged_params
from flaxgen.zoo.latent.config import BesideConfig, batch_spec, num_labels
from flaxgen.zoo.latent.model import Model

ATTENTION, BLOCK = {"self_attention", "cross_attention"}, "block_"
KERNEL, DOWN, UP = "/kernel", "/down", "/up"


@dataclass(frozen=True)
class Lora:
    """Which kernels get factors: the queries, keys, values and outputs of "attention", all of the "blocks" of its
    transformers, or "all" of the net, convolutions too. The factors lead through `rank` dimensions, and what they add
    is multiplied by alpha / rank."""

    rank: int = 4
    alpha: float = 4.0
    where: Literal["attention", "blocks", "all"] = "attention"

    def __post_init__(self):
        require(self.rank >= 1, f"rank={self.rank}: expected 1 or more")
        require(self.alpha > 0, f"alpha={self.alpha}: expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class LoraConfig(BesideConfig):
    """A run whose parameters are a LoRA of the net in the directory `base`, which has the same `net`."""

    lora: Lora = Lora()

    def __post_init__(self):
        super().__post_init__()
        kind = type(self.net).__name__
        require(isinstance(self.net, UNet), f"net is a {kind}: expected a UNet, which LoRA files are of")


@functools.lru_cache(maxsize=8)
def kernels(net: UNet, where: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the kernels that get factors, by path.

    Raises:
        ValueError: if the net has none such.
    """
    chosen = {
        "attention": lambda way: not ATTENTION.isdisjoint(way),
        "blocks": lambda way: any(name.startswith(BLOCK) for name in way),
        "all": lambda way: True,
    }[where]
    known = {path: place.shape for (_, path), place in module_of({UNET: net}).items()}
    found = {path: known[path] for path in sorted(known) if chosen(path.removesuffix(KERNEL).split("/"))}
    require(bool(found), f"lora.where={where}: the net has no such kernels")
    return found


def init_params(config: LoraConfig, key: PRNGKey) -> Params:
    """Fresh factors: down is normal, of deviation 1 / rank, and up is 0, so that a run begins with the net as it is
    [Hu22, sec. 4.1]."""
    flat, rank = {}, config.lora.rank
    for number, (path, shape) in enumerate(kernels(cast(Any, config.net), config.lora.where).items()):
        stem, down_key = path.removesuffix(KERNEL), jax.random.fold_in(key, number)
        flat[stem + DOWN] = jax.random.normal(down_key, (*shape[:-1], rank)) / rank
        flat[stem + UP] = jnp.zeros((rank, shape[-1]))
    return unflatten(flat)


def factors_of(config: LoraConfig, params: Params) -> dict[str, Factors]:
    """A run's parameters as factors by the paths of their kernels."""
    leaves, scale = leaves_of(params), np.float32(config.lora.alpha / config.lora.rank)
    stems = [path.removesuffix(DOWN) for path in leaves if path.endswith(DOWN)]
    return {stem + KERNEL: Factors(leaves[stem + DOWN], leaves[stem + UP], scale) for stem in stems}


def make_loss(config: LoraConfig, files: Files) -> Loss:
    """The loss of the net with the factors in its kernels, whose own weights are the frozen ones of the state."""
    of_net = model.make_loss(config, files)

    def loss(params, batch, keys, held=Held()):  # noqa: B008
        return of_net(merge(held.frozen, [(factors_of(config, params), 1.0)]), batch, keys)

    return loss


def init_held(config: LoraConfig, key: PRNGKey, params: Params) -> Held:
    """The weights of the net."""
    return Held(frozen=family.base_params(config, key))


def merged(adapter: Any) -> Model:
    """The net with a LoRA's factors in its kernels.

    Raises:
        ValueError: if the net is not there, or not the one that the LoRA was trained with.
    """
    net = family.base_of(adapter)
    params = merged_params(net.params, [(factors_of(adapter.config, adapter.params), 1.0)])
    return dataclasses.replace(net, params=params)


def _parts(adapter: Any) -> drawing.Parts:
    return family.parts_of_run(merged(adapter))


LORA = Family(
    name="latent_lora",
    config=LoraConfig,
    type_name="LatentLora",
    init_params=init_params,
    init_held=init_held,
    batch_spec=batch_spec,
    make_loss=make_loss,
    classes=num_labels,
    check=family.FAMILY.check,
    open_source=family.open_source,
    prepare=family.prepare_beside,
    files=family.BESIDE_FILES,
    companions=family.BESIDE_COMPANIONS,
    free=family.BESIDE_FREE,
    preview=lambda adapter, key: family.preview(merged(adapter), key),
    requests={kind: family.alone(answer, _parts) for kind, answer in family.ANSWERS.items()},
)
