"""A tiny DALL-E of scenes, by either of its nets: real files around weights drawn by chance.

Pictures are 16 px and maps 4 x 4 codes out of 6. dalle-mini's net knows two codes more, which nothing decodes.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import random_weights
import unclip_toy
from saving import write_model

from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.family.coded import CodeDrawing
from flaxgen.nets.dalle import Dalle
from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.nets.vqvae import VqVae
from flaxgen.zoo import autoencoder, dalle

CONTEXT, SIDE, CODES, TOKENS = 24, 4, 6, 300
DATA = Data(source="scenes", image_size=16, size=24, threads=0)
RUN: Any = {"seed": 0, "batch_size": 8, "log_every": 1, "preview_every": 0, "data": DATA}
VQ = autoencoder.Config(
    **RUN,
    steps=1,
    net=VqVae(image_size=16, factor=4, channels=4, residual_channels=4, depth=1, latent_channels=3),
    bottleneck=autoencoder.Codebook(codes=CODES),
)
NETS = {
    "dalle": Dalle(
        text_tokens=TOKENS, context=CONTEXT, rows=SIDE, columns=SIDE, codes=CODES, width=8, depth=1, heads=2,
        conv_size=3,
    ),
    "dalle-mini": DalleMini(
        text_tokens=TOKENS, context=CONTEXT, codes=CODES + 2, length=SIDE**2, begin=CODES, width=8, depth=1, heads=2,
        inner=6,
    ),
}  # fmt: skip


class Toy(NamedTuple):
    """Model directories: two autoencoders that differ in their weights, a CLIP, and a transformer by each net."""

    autoencoder: Path
    other: Path
    clip: Path
    transformers: dict[str, Path]


def config_of(name: str, toy: Toy | None = None, **changes: Any) -> dalle.Config:
    """The config of a transformer; of a toy, told where its autoencoder is."""
    config = dalle.Config(
        **RUN, steps=2, net=NETS[name], vocabulary=dalle.Vocabulary(size=TOKENS, captions=24),
        autoencoder="" if toy is None else str(toy.autoencoder), drawing=CodeDrawing(batch=8),
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


def write_random(folder: Path, config: Any, strength: float = 1.0) -> None:
    """Writes a model directory of random weights with the small files that a run of the config begins with."""
    family = verbs.family_of(config)
    params = jax.tree.map(lambda x: strength * x, random_weights.draw_like(family.abstract_params(config)))
    write_model(folder, config, params, config.steps, family.prepare(config, {}))


def write_toy(root: Path) -> Toy:
    """Writes them all; the CLIP is unclip_toy's."""
    toy = Toy(root / "vq", root / "other", root / "clip", {name: root / name for name in NETS})
    for folder, config in ((toy.autoencoder, VQ), (toy.clip, unclip_toy.CLIP_CONFIG)):
        write_random(folder, config)
    model = verbs.load(toy.autoencoder)
    write_model(toy.other, VQ, {**model.params, "codebook": -model.params["codebook"]}, 1)
    for name, folder in toy.transformers.items():
        write_random(folder, config_of(name, toy), strength=3.0)  # so that what it draws depends on the caption
    return toy
