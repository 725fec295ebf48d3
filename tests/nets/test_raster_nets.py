"""Nets over grids in raster order: who reads whom, and that all pictures together are certain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelcnn_plus import PixelCNNPlus
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.tokens.logistic import log_prob, read_mixture

GRID = {"height": 4, "width": 5, "num_classes": 3}
GATED = PixelCNN(**GRID, codes=4, channels=12, depth=3, first_size=5, out_channels=48)
PLUS = PixelCNNPlus(**GRID, codes=4, pixel_channels=3, logistics=2, channels=6, depth=1, resolutions=2)
SNAIL = PixelSNAIL(**GRID, codes=4, channels=6, blocks=1, depth=1, key_channels=2, value_channels=4)
NETS = {
    "gated": GATED,
    "gated, three values a place": GATED.clone(pixel_channels=3, channels=30),
    "plus": PLUS,
    "snail": SNAIL,
    "snail on pixels": SNAIL.clone(pixel_channels=2, logistics=2),
}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
LABEL = jnp.array([1])


def shape(net):
    channels = getattr(net, "pixel_channels", 0)
    return (net.height, net.width) + ((channels,) if channels else ())


def grid(net, num=1):
    return jax.random.randint(jax.random.key(0), (num, *shape(net)), 0, net.codes)


def reads_levels(net):
    return isinstance(net, PixelCNNPlus) or (isinstance(net, PixelSNAIL) and net.pixel_channels > 0)


def moved_embeddings(moves):
    """An interceptor that adds moves [B h w C?], times 1, 2, 3 ... along the features, to what tables of codes give."""

    def intercept(call, args, kwargs, context):
        out = call(*args, **kwargs)
        name = context.module.name or ""
        if not (name.startswith("code") and context.method_name == "__call__"):
            return out
        move = moves[..., int(name.split("_")[1])] if moves.ndim == 4 else moves
        return out + jnp.multiply.outer(move, jnp.arange(1.0, 1 + out.shape[-1]))

    return nn.intercept_methods(intercept)


def jacobian(net, params):
    """How far each output [place, value] moves with what is read at each place, |d out / d in| summed over logits and
    four pictures: in one of them rectifiers may let nothing through."""
    codes = grid(net, 4)
    label = jnp.arange(4) % net.num_classes

    @jax.jit
    def derivatives(moves):
        def apply(move):
            if reads_levels(net):
                return net.apply({"params": params}, codes + move[None], label)
            with moved_embeddings(move[None]):
                return net.apply({"params": params}, codes, label)

        return jax.vmap(lambda move: jax.jvp(apply, (jnp.zeros(shape(net)),), (move,))[1])(moves)

    places = codes[0].size
    found = derivatives(jnp.eye(places).reshape(places, *shape(net)))
    return np.abs(found).sum((1, -1)).reshape(places, -1).T


@each_net
def test_a_place_reads_every_earlier_one_and_no_other(net, shaken):
    found = jacobian(net, shaken(net, grid(net), LABEL))
    outputs, places = found.shape
    values = places // outputs  # that are predicted together
    before = np.arange(places)[None] < values * np.arange(outputs)[:, None]
    np.testing.assert_array_equal(found != 0, before)
    assert found[before].min() > 1e-9


def log_probs(net, params, codes, label):
    """Of every picture, in nats."""
    out = net.apply({"params": params}, codes, label)
    if reads_levels(net):
        return log_prob(read_mixture(out, net.pixel_channels), codes, net.codes).sum((1, 2))
    found = jnp.take_along_axis(jax.nn.log_softmax(out), codes[..., None], axis=-1)
    return found.sum(tuple(range(1, found.ndim)))


@each_net
def test_all_pictures_together_are_certain(net, shaken):
    """512 of them: 3 x 3 bits, or with more values a place 3 x 1 pixels of 3 bits."""
    channels = 3 if net.pixel_channels == 3 and not reads_levels(net) else 0
    size = {"height": 3, "width": 1 if channels else 3, "codes": 2}
    net = net.clone(**size, pixel_channels=1 if reads_levels(net) else channels)
    codes = jnp.asarray(list(itertools.product((0, 1), repeat=9)), jnp.int32).reshape(512, *shape(net))
    params = jax.tree.map(lambda leaf: 3.0 * leaf, shaken(net, codes[:1], LABEL))
    found = np.asarray(jax.jit(log_probs, static_argnums=0)(net, params, codes, jnp.ones(512, int)), np.float64)
    np.testing.assert_allclose(np.exp(found).sum(), 1, atol=1e-5)
    assert np.exp(found).max() > 3 / 512
