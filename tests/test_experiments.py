"""Every file in experiments/: its config builds, survives JSON, and its train step fits together at full size."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import pytest

from flaxgen import verbs
from flaxgen.family import directory
from flaxgen.nets.published import STABLE_DIFFUSION_XL
from flaxgen.train import checkpoint
from flaxgen.train.config import override
from flaxgen.weights import unet2d

ROOT = Path(__file__).parents[1] / "experiments"
NAMES = sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.rglob("*.py"))
UNCLIP = ("clip", "prior", "ar_prior", "decoder", "upsampler_256", "upsampler_1024")
LARGE = ("unclip/", "stylegan2_", "adm_imagenet64", "ddpm_cifar10", "edm_cifar10", "iddpm_cifar10", "vqgan_imagenet256",
         "vqvae2_imagenet256/", "kl_f8", "dit_imagenet256", "stable_diffusion/")  # fmt: skip
"""Their steps take seconds to trace; `ddpm_cifar10_small` is among them, the digits and scenes are not."""
RUN_FIELDS = ("seed", "steps", "batch_size", "log_every", "preview_every", "checkpoint_every", "keep_checkpoints")


@functools.cache
def read(name):
    return directory.read_experiment(ROOT / f"{name}.py", verbs.families())


@functools.cache
def params(config):
    return verbs.family_of(config).abstract_params(config)


def count(config):
    return sum(x.size for x in jax.tree.leaves(params(config)))


def test_the_experiments_are_there():
    expected = {"ddpm_scurve", "ddpm_digits", "ddpm_cifar10", "ddpm_cifar10_small", "iddpm_cifar10", "edm_cifar10"}
    assert expected | {"adm_imagenet64"} | {f"unclip/{name}" for name in UNCLIP} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    config, _ = read(name)
    assert all(hasattr(config, field) for field in RUN_FIELDS)
    family = verbs.family_of(config)
    assert family.decode(json.loads(json.dumps(family.encode(config)))) == config


def test_one_size_sets_a_game():
    """Its data, its generator and its discriminator, which have to be alike."""
    config, _ = read("stylegan2_ada_folder")
    game = override(config, ["size=64"])
    assert (game.data.image_size, game.generator.image_size, game.discriminator.image_size) == (64, 64, 64)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(LARGE)) for name in NAMES],
)
def test_train_step(name):
    config, _ = read(name)
    family = verbs.family_of(config)
    init, make_train_step = family.training(config)
    state = jax.eval_shape(init, jax.random.key(0))
    after, metrics = jax.eval_shape(make_train_step(None), state, family.batch_spec(config), jax.random.key(0))
    assert checkpoint.leaf_specs(after) == checkpoint.leaf_specs(state)
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("ddpm_cifar10", 0.0),
        ("stylegan2_cifar10", 0.0),
        ("stylegan2_ffhq1024", 0.0),
        ("adm_imagenet64", 0.005),
        ("vqgan_imagenet256", 0.0),
        ("kl_f8", 0.0),
        ("dit_imagenet256", 0.0005),
        ("stable_diffusion/v1", 0.0),
        ("stable_diffusion/v3", 0.0),
        ("stable_diffusion/control", 0.0),
        ("stable_diffusion/word", 0.0),
        ("unclip/clip", 0.0),
        ("unclip/decoder", 0.05),
        ("unclip/upsampler_256", 0.05),
        ("unclip/upsampler_1024", 0.07),
    ],
)
def test_published_sizes(name, tolerance):
    config, published = read(name)
    assert count(config) == pytest.approx(published, rel=tolerance, abs=0)


@pytest.mark.slow
def test_parameters_of_xl():
    """Counted from diffusers' UNet2DConditionModel of that shape."""
    leaves = jax.tree.leaves(unet2d.abstract_params(STABLE_DIFFUSION_XL))
    assert sum(x.size for x in leaves) == 2_567_463_684


def test_parts_of_the_decoder():
    """[Nichol21b, sec. 4]: "roughly 2.3 billion parameters for the visual part", "roughly 1.2 billion" for the blocks
    of the text transformer."""
    config, _ = read("unclip/decoder")
    tower = params(config)["text"]
    text, blocks = (sum(x.size for x in jax.tree.leaves(part)) for part in (tower, tower["transformer"]))
    assert blocks == pytest.approx(1.2e9, rel=0.02)
    assert count(config) - text == pytest.approx(2.3e9, rel=0.03)


def test_the_published_fields_of_the_priors_give_their_published_size_to_a_digit_at_most():
    """A block of width W has 12 W^2 parameters and 13 W biases and norms. The paper's 24 blocks of width 2048 are 1.2B,
    which rounds to the 1B that it says; those of its autoregressive prior's decoder alone are 0.8B, and with its text
    encoder's 2.0B. Karlo's diffusion prior has 20 blocks, and is of the published size."""

    def blocks(depth, width):
        return depth * (12 * width**2 + 13 * width)

    diffusion, autoregressive = (read(f"unclip/{name}")[0] for name in ("prior", "ar_prior"))
    assert count(diffusion) == pytest.approx(blocks(24, 2048), rel=0.02)
    assert round(count(diffusion), -9) == read("unclip/prior")[1] == 1e9
    assert count(autoregressive) == pytest.approx(blocks(24, 1664), rel=0.02)
    assert blocks(24, 2048) + blocks(24, 1664) == pytest.approx(2.0e9, rel=0.01)
    karlo = dataclasses.replace(diffusion, net=dataclasses.replace(diffusion.net, depth=20))
    assert count(karlo) == pytest.approx(1e9, rel=0.03)


@pytest.mark.parametrize(("name", "size"), [("upsampler_256", 256), ("upsampler_1024", 1024)])
def test_upsamplers_train_on_crops_of_a_quarter_and_draw_the_whole(name, size):
    config, _ = read(f"unclip/{name}")
    data = config.data
    assert (data.resize, data.image_size, data.random_crop) == (size, size // 4, True)
    assert config.net.image_size == size // 4
    assert config.tile == size


def test_stages_of_the_full_size_unclip_fit_together():
    """Widths are those of the CLIP, sizes those of the stage before."""
    configs = {name: read(f"unclip/{name}")[0] for name in UNCLIP}
    clip, decoder = configs["clip"].net, configs["decoder"]
    for name in ("prior", "ar_prior"):
        net = configs[name].net
        assert (net.embedding_dim, net.text_dim, net.context) == (
            clip.embedding_dim,
            clip.text.width,
            clip.text.context,
        )
    assert (decoder.net.embedding_dim, decoder.context) == (clip.embedding_dim, clip.text.context)
    assert decoder.net.text.vocab_size == clip.text.vocab_size
    assert decoder.net.text_dim == decoder.net.text.width
    first, second = configs["upsampler_256"], configs["upsampler_1024"]
    assert decoder.net.unet.image_size * first.factor * second.factor == second.data.resize
