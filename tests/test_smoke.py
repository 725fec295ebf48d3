"""What has to work on every Python and with every version of what flaxgen stands on. `make test-new` runs it on the
newest of everything, with the tests that are marked smoke elsewhere."""

import importlib
import pkgutil

import dalle_toy
import gan_toy
import jax
import jax.numpy as jnp
import pytest
import unclip_toy
from PIL import Image

import flaxgen
from flaxgen import verbs
from flaxgen.cli import main, make_parser
from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.family import Family
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.classifier import NoisyClassifier
from flaxgen.nets.mlp import MLP
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.unet import UNet
from flaxgen.zoo import FAMILIES, classifier, codes, diffusion, latent
from flaxgen.zoo.latent.control_runs import ControlConfig
from flaxgen.zoo.latent.lora import LoraConfig
from flaxgen.zoo.latent.words import WordConfig

pytestmark = pytest.mark.smoke

LATENTS = UNet(
    image_size=4, in_channels=3, out_channels=3, channels=8, multipliers=(1,), depth=1, norm_groups=4, token_dim=8,
    attention=(SpatialTransformer(heads=2, norm_groups=4),), middle="none",
)  # fmt: skip
DIGITS = Data(source="digits", image_size=8, channels=1)
CONFIGS = {
    "diffusion of pictures": diffusion.Config(
        seed=0, steps=1, batch_size=4, data=DIGITS,
        net=UNet(image_size=8, in_channels=1, out_channels=1, channels=8, multipliers=(1,), depth=1,
                 attention=(), norm_groups=4),
    ),
    "diffusion of points": diffusion.Config(
        seed=0, steps=1, batch_size=4, data=Data("moons"), net=MLP(2, width=8, depth=1)
    ),
    "classifier": classifier.Config(
        seed=0, steps=1, batch_size=4, data=DIGITS,
        net=NoisyClassifier(num_classes=10, image_size=8, in_channels=1, channels=8, multipliers=(1,), depth=1,
                            attention_resolutions=(), norm_groups=4, head_channels=4),
    ),
    **{f"{name} game": config for name, config in gan_toy.CONFIGS.items() if name != "dcgan"},
    **{name: config for name, config in unclip_toy.CONFIGS.items() if name != "upsampler_2"},
    "autoencoder": dalle_toy.VQ,
    "pixels": codes.Config(
        seed=0, steps=1, batch_size=4, data=DIGITS,
        net=PixelCNN(height=8, width=8, codes=17, pixel_channels=1, channels=4, depth=1, out_channels=8),
    ),
    "latents": latent.Config(seed=0, steps=1, batch_size=4, data=DIGITS, net=LATENTS, objective=Objective()),
    "LoRA": LoraConfig(seed=0, steps=1, batch_size=4, data=DIGITS, net=LATENTS, objective=Objective()),
    "word": WordConfig(seed=0, steps=1, batch_size=4, data=DIGITS, net=LATENTS, objective=Objective()),
    "ControlNet": ControlConfig(
        seed=0, steps=1, batch_size=4, data=DIGITS, net=LATENTS, objective=Objective(), hint_widths=(4, 8)
    ),
    **{f"transformer of {name}": dalle_toy.config_of(name, caption_dropout=0.0) for name in dalle_toy.NETS},
}  # fmt: skip


def test_every_module_is_imported():
    names = [module.name for module in pkgutil.walk_packages(flaxgen.__path__, "flaxgen.")]
    assert len(names) > 100
    for name in set(names) - {"flaxgen.__main__"}:
        importlib.import_module(name)


def test_these_are_all_families():
    """All that are trained, and not imported alone."""
    trained = {family.config for family in FAMILIES if isinstance(family, Family) and _is_trained(family)}
    assert {type(config) for config in CONFIGS.values()} == trained


def _is_trained(family):
    return family.make_loss is not None or family.make_training is not None


@pytest.mark.slow  # beside those that other fast tests take of each family
@pytest.mark.parametrize("name", CONFIGS)
def test_a_train_step(name):
    config = CONFIGS[name]
    family = verbs.family_of(config)
    init, make_train_step = family.training(config)
    batch = {field: jnp.zeros(spec.shape, spec.dtype) for field, spec in family.batch_spec(config).items()}

    def run(key):
        return make_train_step(None)(init(key), batch, key)

    state, metrics = jax.jit(run)(jax.random.key(0))
    assert int(state.step) == 1
    assert jnp.isfinite(metrics["loss"])


def test_the_model_that_comes_along_draws(tmp_path):
    out = tmp_path / "out.png"
    assert main(["draw", "a red circle", "--num", "1", "--steps", "4", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert min(picture.size) >= 128


def commands():
    (choices,) = [action.choices for action in make_parser()._actions if action.choices]
    return list(choices)


@pytest.mark.parametrize("arguments", [[], *([name] for name in commands())], ids=" ".join)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    assert "usage: flaxgen" in capsys.readouterr().out
