"""Nets over grids in raster order: who reads whom, and that all pictures together are certain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flaxgen.nets.code_transformer import CodeTransformer
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelcnn_plus import PixelCNNPlus
from flaxgen.nets.pixelsnail import PixelSNAIL, attend_before
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
    "transformer": CodeTransformer(**GRID, codes=4, features=8, depth=2, heads=2),
}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
KINDS = {name: net for name, net in NETS.items() if name in ("gated", "plus", "snail", "transformer")}
each_kind = pytest.mark.parametrize("net", KINDS.values(), ids=KINDS)
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
        if out.ndim == 3:  # in a row, without the last one
            move = move.reshape(1, -1)[:, : out.shape[1]]
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
    if reads_levels(net):
        net = net.clone(height=3, width=3, codes=2, pixel_channels=1)
    elif net == NETS["gated, three values a place"]:
        net = net.clone(height=3, width=1, codes=2)
    else:
        net = net.clone(height=3, width=3, codes=2)
    codes = jnp.asarray(list(itertools.product((0, 1), repeat=9)), jnp.int32).reshape(512, *shape(net))
    params = jax.tree.map(lambda leaf: 3.0 * leaf, shaken(net, codes[:1], LABEL))
    found = np.asarray(jax.jit(log_probs, static_argnums=0)(net, params, codes, jnp.ones(512, int)), np.float64)
    np.testing.assert_allclose(np.exp(found).sum(), 1, atol=1e-5)
    assert np.exp(found).max() > 3 / 512


@each_kind
def test_labels_are_read_everywhere_and_dropout_is_for_training(net, shaken):
    net, codes, labels = net.clone(dropout=0.3), grid(net, 2), jnp.array([0, 2])
    params = shaken(net, codes, labels)

    @jax.jit
    def outputs(labels, key):
        plain = net.apply({"params": params}, codes, labels)
        return plain, net.apply({"params": params}, codes, labels, train=True, rngs={"dropout": key})

    (plain, dropped), (other, _), (_, again) = (
        outputs(*given)
        for given in ((labels, jax.random.key(0)), (labels[::-1], jax.random.key(1)), (labels, jax.random.key(2)))
    )
    assert plain.dtype == jnp.float32
    assert (np.abs(plain - other).max(-1) > 1e-4).all()
    for one, two in ((plain, dropped), (dropped, again)):
        assert np.abs(one - two).max() > 1e-3


@each_kind
def test_bfloat16_and_remat_change_rounding_and_memory_only(net, run, shaken):
    codes = grid(net)
    params = shaken(net, codes, LABEL)
    out, half = (run(n, params, codes, LABEL) for n in (net, net.clone(dtype="bfloat16")))
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - out).max() < 0.1 * np.abs(out).max()
    traced = jax.make_jaxpr(lambda: net.clone(remat=True).apply({"params": params}, codes, LABEL))()
    assert "remat" in str(traced)


@each_net
def test_without_classes_there_is_no_label(net):
    plain = net.clone(num_classes=0)
    made = jax.eval_shape(plain.init, jax.random.key(0), grid(net))
    assert set(made) == {"params"}
    with pytest.raises(ValueError, match="num_classes=0 and takes no condition 'label'"):
        jax.eval_shape(plain.init, jax.random.key(0), grid(net), LABEL)
    with pytest.raises(ValueError, match="num_classes=3 and needs the condition 'label'"):
        jax.eval_shape(net.init, jax.random.key(0), grid(net))
    with pytest.raises(ValueError, match=r"a grid of 4x4(x.)?, but this net is for grids of 4x5"):
        jax.eval_shape(net.init, jax.random.key(0), grid(net)[:, :, :4], LABEL)


def test_attention_before_a_place_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(1, 2, 3, width)).astype(np.float32) for width in (2, 2, 5))
    found = np.asarray(attend_before(*map(jnp.asarray, (query, key, value)))).reshape(6, 5)
    query, key, value = (x.reshape(6, -1).astype(np.float64) for x in (query, key, value))
    assert not found[0].any()
    for place in range(1, 6):
        weights = np.exp(key[:place] @ query[place] / np.sqrt(2))
        np.testing.assert_allclose(found[place], weights / weights.sum() @ value[:place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (GATED.clone(dtype="half"), "dtype='half' is not one of float32, bfloat16"),
        (GATED.clone(first_size=4), "first_size=4: expected an odd number"),
        (GATED.clone(pixel_channels=3, channels=8), "channels=8 is no multiple of pixel_channels=3"),
        (PLUS.clone(codes=1), "codes=1: expected 2 levels or more"),
        (PLUS.clone(resolutions=0), "resolutions=0: expected 1 or more"),
        (SNAIL.clone(value_channels=1), "value_channels=1: expected key_channels=2 or more"),
        (NETS["transformer"].clone(heads=0), "heads=0: expected 1 or more"),
    ],
)
def test_what_is_wrong_is_named(net, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape(net)), int), LABEL)
