"""Which nets NVlabs' state_dicts are of, by their names and shapes alone."""

import jax
import numpy as np
import pytest

from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.weights import store, stylegan2
from flaxgen.weights import stylegan2_config as config
from flaxgen.weights.rules import from_params

NETS = [("skip", 96, 12), ("orig", 64, 64), ("resnet", 1000, 7), ("skip", 60, 8)]
"""architecture, channel_base, channel_max: widths that either gives, that the base gives, that the maximum gives, and
that are no divisors of the base."""


def shapes_of(net):
    """Those of the tensors that the export writes."""
    rules = stylegan2.GENERATOR if isinstance(net, Generator) else stylegan2.DISCRIMINATOR
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), stylegan2.abstract_variables(net))
    return {name: value.shape for name, value in from_params(rules, store.flatten(zeros)).items()}


@pytest.mark.parametrize(("architecture", "base", "largest"), NETS)
@pytest.mark.parametrize("net", [Generator, Discriminator])
def test_the_net_of_its_tensors(net, architecture, base, largest):
    """It has the same tensors, and the same fields but for the channels' two numbers, of which many give the same."""
    net = net(16, channels=1, channel_base=base, channel_max=largest, architecture=architecture)
    kind = "generator" if isinstance(net, Generator) else "discriminator"
    shapes = shapes_of(net)
    read = {"generator": config.generator_from_shapes, "discriminator": config.discriminator_from_shapes}
    found = read[kind](shapes, "here")
    assert config.kind_of(shapes) == kind
    assert shapes_of(found) == shapes
    assert found.clone(channel_base=base, channel_max=largest) == net


def test_latents_labels_and_deviations_are_read():
    g = Generator(8, latent_dim=5, style_dim=6, num_classes=3, mapping_depth=2, channel_base=64, channel_max=16)
    assert config.generator_from_shapes(shapes_of(g), "here").clone(channel_base=64) == g
    d = Discriminator(8, num_classes=3, mapping_depth=2, channel_base=64, channel_max=16, deviations=2)
    assert config.discriminator_from_shapes(shapes_of(d), "here").clone(channel_base=64) == d


def test_other_nets_are_neither():
    assert config.kind_of({"b4.const": (3,), "synthesis.input.weight": (4, 4)}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"synthesis.b8.conv1.weight": None}, r"here: tensor 'synthesis\.b8\.conv1\.weight' is missing"),
        ({"mapping.fc0.weight": None}, r"here: tensor 'mapping\.fc0\.weight' is missing"),
        ({"mapping.w_avg": (6, 6)}, r"here: tensor 'mapping\.w_avg' has shape \(6, 6\), expected 1 dimensions"),
        ({"mapping.fc0.weight": (6, 6)}, r"'mapping\.fc0\.weight' has shape \(6, 6\), which leaves no inputs"),
    ],
)
def test_what_no_net_has_is_named(change, message):
    net = Generator(8, latent_dim=5, style_dim=6, num_classes=3, channel_base=64, channel_max=8)
    shapes = {**shapes_of(net), **change}
    with pytest.raises(ValueError, match=message):
        config.generator_from_shapes({name: shape for name, shape in shapes.items() if shape is not None}, "here")
