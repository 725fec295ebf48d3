"""A tiny unCLIP of scenes: real files around weights drawn by chance, which need no training to draw what differs.

Pictures are 16 px in CLIP and the decoder, and 32 and 64 px behind the two upsamplers.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import random_weights
from PIL import Image
from saving import write_model

from flaxgen import verbs
from flaxgen.data import Data
from flaxgen.family import directory
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.ar_prior import ARPrior
from flaxgen.nets.attention import TokenAttention
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.prior import DiffusionPrior
from flaxgen.nets.unet import UNet
from flaxgen.train.checkpoint import Checkpoints
from flaxgen.train.optim import Optimizer
from flaxgen.zoo import clip, decoder, prior, upsampler

CONTEXT, DIM, WIDTH, SIZE, STEPS = 16, 8, 16, 16, 40
RUN: Any = {"seed": 0, "steps": STEPS, "batch_size": 8, "log_every": 1, "preview_every": 0}
DATA = Data(source="scenes", image_size=SIZE, size=48, threads=0)
FAST = Optimizer(learning_rate=5e-3)
TABLE = Process(schedule="cosine", timesteps=16, prediction="v")

UNET = UNet(
    image_size=SIZE, patch=4, channels=8, multipliers=(1,), depth=1, attention=(TokenAttention(),), middle="none",
    norm_groups=4, time_channels=8, scale_shift=True, added=True, token_dim=8,
)  # fmt: skip
ENLARGING = dataclasses.replace(UNET, attention=(), added=False, token_dim=0, low_res=True)
TEXT = {"embedding_dim": DIM, "text_dim": WIDTH, "context": CONTEXT, "width": 16, "depth": 1, "heads": 2}

CLIP_CONFIG = clip.Config(
    **RUN,
    data=DATA,
    net=CLIP(
        vision=VisionTower(image_size=SIZE, patch=8, width=WIDTH, depth=1, heads=2),
        text=TextTower(vocab_size=320, context=CONTEXT, width=WIDTH, depth=1, heads=2),
        embedding_dim=DIM,
    ),
    vocabulary=clip.Vocabulary(size=320, captions=48),
    false_captions=2,
    false_weight=0.1,
    optimizer=FAST,
)
PRIOR_CONFIG = prior.Config(
    **RUN,
    data=DATA,
    net=DiffusionPrior(**TEXT),
    process=Process(schedule="cosine", timesteps=16, prediction="x0"),
    optimizer=FAST,
    sampling=Sampling(sampler="ddpm", steps=2, grid="linspace", limit=10.0, guidance=2.0),
)
AR_PRIOR_CONFIG = dataclasses.replace(PRIOR_CONFIG, net=ARPrior(**TEXT, dims=4, buckets=16, dot_buckets=8))
DECODER_CONFIG = decoder.Config(
    **RUN,
    data=DATA,
    net=Decoder(unet=UNET, embedding_dim=DIM, text_dim=WIDTH, image_tokens=2, null_text=True),
    context=CONTEXT,
    process=TABLE,
    optimizer=FAST,
    sampling=Sampling(steps=8, guidance=3.0),
)
UPSAMPLER_CONFIG = upsampler.Config(
    **RUN,
    data=dataclasses.replace(DATA, resize=32, random_crop=True),
    net=ENLARGING,
    factor=2,
    process=TABLE,
    objective=Objective(weight="simple"),
    optimizer=FAST,
    tile=64,
    overlap=16,
    sampling=Sampling(steps=2),
)
CONFIGS = {
    "clip": CLIP_CONFIG,
    "prior": PRIOR_CONFIG,
    "ar_prior": AR_PRIOR_CONFIG,
    "decoder": DECODER_CONFIG,
    "upsampler_1": UPSAMPLER_CONFIG,
    "upsampler_2": dataclasses.replace(
        UPSAMPLER_CONFIG, data=dataclasses.replace(UPSAMPLER_CONFIG.data, resize=64), degrade="bsr"
    ),
}
TRAINED = ("clip", "prior", "ar_prior", "decoder", "upsampler_1")
TOLD_BY_CLIP = ("prior", "ar_prior", "decoder")


class Toy(NamedTuple):
    """Where the runs of the stages are, and the model directory that is composed of them."""

    runs: dict[str, Path]
    model: Path


def config_of(name: str, runs: dict[str, Path]) -> Any:
    """The stage's config, told where its CLIP is."""
    config: Any = CONFIGS[name]
    return dataclasses.replace(config, clip=str(runs["clip"])) if name in TOLD_BY_CLIP else config


def write_stages(root: Path) -> Toy:
    """Writes and composes it if it is not there; the second upsampler is the first one's weights under its own name."""
    toy = Toy({name: root / name for name in CONFIGS} | {"upsampler_2": root / "upsampler_1"}, root / "model")
    if not toy.model.exists():
        for name in TRAINED:
            _write_run(config_of(name, toy.runs), toy.runs[name])
        verbs.compose(toy.model, toy.runs)
    return toy


def _write_run(config: Any, workdir: Path) -> None:
    """What a finished run leaves, but for its log: config, small files and a checkpoint."""
    family = verbs.family_of(config)
    prepared = directory.prepare(family, config, workdir)
    experiment = family.build(config, prepared)
    directory.claim(workdir, family, config, prepared)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))
    params = random_weights.draw_like(shapes.params)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = state._replace(step=np.full((), STEPS, shapes.step.dtype), params=params, ema_params=params)
    with Checkpoints(workdir / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(STEPS, jax.device_put(state))


def with_another_clip(toy: Toy, folder: Path) -> Path:
    """Writes a CLIP of other weights to the folder."""
    model = verbs.load(toy.runs["clip"])
    params = {**model.params, "logit_scale": model.params["logit_scale"] + 1}
    write_model(folder, model.config, params, model.step, model.files)
    return folder


def without_captions(folder: Path) -> Data:
    """Writes two pictures to the folder; the data that they are."""
    for i in range(2):
        Image.new("RGB", (SIZE, SIZE), (100 * i, 0, 0)).save(folder / f"{i}.png")
    return Data(source="folder", path=str(folder), image_size=SIZE, threads=0)
