"""The autoencoder: its interface, published sizes, spatial norms by hand, what is refused. Numbers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import layers, resnet
from flaxgen.nets.attention import AttentionBlock, SelfAttention
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.train.config import decode, encode

ONE = SelfAttention()
SMALL = Autoencoder(
    image_size=8, channels=8, multipliers=(1, 2), depth=1, attention=(None, ONE), latent_channels=3, norm_groups=4
)
PUBLISHED = {
    "stable diffusion": ({}, 83_653_863),
    "sd3": ({"latent_channels": 16, "quant_convs": False}, 83_819_683),
    "movq": (
        {"multipliers": (1, 2, 2, 4), "attention": (None, None, None, ONE), "moments": False, "spatial_norm": True},
        67_832_495 - 16384 * 4,
    ),
    "vqgan f16": (
        {"multipliers": (1, 1, 2, 2, 4), "attention": (*[None] * 4, ONE), "moments": False, "latent_channels": 256},
        72_141_699 - 1024 * 256,
    ),
}


def picture(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def shapes(net, size=32):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, net.in_channels)))["params"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """Counted in diffusers and taming-transformers, less the codebook."""
    fields, expected = PUBLISHED[name]
    params = shapes(Autoencoder(**fields))
    assert set(params) == {"encoder", "decoder"}
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
    ("changes", "code_dim", "latent_dim", "factor"),
    [
        ({}, 6, 3, 2),
        ({"moments": False, "code_channels": 5, "spatial_norm": True}, 5, 5, 2),
        ({"quant_convs": False, "multipliers": (1, 2, 0.5), "attention": (), "middle": "resblocks"}, 6, 3, 4),
        ({"depth": (1, 2), "middle": "none", "in_channels": 1, "dtype": "bfloat16"}, 6, 3, 2),
    ],
)
def test_codes_and_pictures_have_the_shapes_that_properties_say(changes, code_dim, latent_dim, factor):
    net = SMALL.clone(**changes)
    assert (net.code_dim, net.latent_dim, net.factor) == (code_dim, latent_dim, factor)
    params, x = shapes(net, 8), jnp.zeros((2, 16, 8, net.in_channels))
    codes = jax.eval_shape(lambda p: net.apply({"params": p}, x, method="encode"), params)
    assert (codes.shape, codes.dtype) == ((2, 16 // factor, 8 // factor, code_dim), jnp.float32)
    z = jnp.zeros((*codes.shape[:3], latent_dim))
    pictures = jax.eval_shape(lambda p: net.apply({"params": p}, z, method="decode"), params)
    assert (pictures.shape, pictures.dtype) == (x.shape, jnp.float32)


def test_spatial_norm_by_hand(shaken, run):
    """A group norm, scaled and shifted by linear maps of the guide's pixel that lies there [Zheng22]."""
    x, guide = picture(0, 2, 4, 8, 6), picture(1, 2, 2, 2, 3)
    net = layers.SpatialNorm(2, 1e-6)
    params = shaken(net, x, guide)
    wide = np.repeat(np.repeat(np.asarray(guide), 2, axis=1), 4, axis=2)
    scale, shift = (wide @ params[name]["kernel"][0, 0] + params[name]["bias"] for name in ("scale", "shift"))
    grouped = np.asarray(x).reshape(2, 4, 8, 2, 3)
    normed = (grouped - grouped.mean((1, 2, 4), keepdims=True)) / grouped.std((1, 2, 4), keepdims=True)
    normed = normed.reshape(x.shape) * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(run(net, params, x, guide), normed * scale + shift, atol=1e-4)


def test_blocks_without_an_embedding_are_those_whose_embedding_counts_nothing(shaken, run):
    x, emb = picture(0, 2, 4, 4, 4), picture(1, 2, 6)
    block = resnet.ResBlock(8, norm_groups=2)
    params = shaken(block, x, emb)
    silent = params | {"embedding": jax.tree.map(np.zeros_like, params["embedding"])}
    bare = {name: value for name, value in params.items() if name != "embedding"}
    np.testing.assert_allclose(run(block, bare, x), run(block, silent, x, emb), atol=1e-6)


def test_only_a_guide_makes_spatial_norms():
    x, guide = jnp.zeros((1, 4, 4, 4)), jnp.zeros((1, 2, 2, 3))
    for block, call, name in (
        (AttentionBlock(norm_groups=2), (x, None, None, guide), "norm"),
        (resnet.ResBlock(4, norm_groups=2), (x, None, guide), "norm_2"),
    ):
        guided, plain = (jax.eval_shape(block.init, jax.random.key(0), *given)["params"] for given in (call, (x,)))
        assert set(guided[name]) == {"norm", "scale", "shift"}
        assert set(plain[name]) == {"scale", "bias"}


def test_what_is_computed_again_has_the_same_gradients():
    """And every parameter has one, through the spatial norms too."""
    net = SMALL.clone(channels=4, multipliers=(1,), attention=(), spatial_norm=True)
    x, rng = picture(0, 1, 8, 8, 3), np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes(net, 8))

    @jax.jit
    def gradients(params):
        return [
            jax.grad(lambda p, n=n: jnp.square(n.apply({"params": p}, x)).mean())(params)
            for n in (net, net.clone(remat=True))
        ]

    kept, again = gradients(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), kept, again)
    still = {jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(kept) if not leaf.any()}
    assert not {path for path in still if "['key']['bias']" not in path and "quant_conv" not in path}


@pytest.mark.parametrize("net", [SMALL, Autoencoder(depth=(1, 2, 3, 4)), TinyAutoencoder(), DalleVae(depth=1)])
def test_nets_are_data(net):
    """They go through JSON as fields of a config do."""
    known = {kind.__name__: kind for kind in (type(net), SelfAttention)}
    assert decode(encode(net, known), known) == net


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels=0: expected 1 or more"),
        ({"latent_channels": 0}, "latent_channels=0: expected 1 or more"),
        ({"norm_groups": 3}, "norm_groups=3 does not divide 8 channels"),
        ({"middle": "some"}, "middle='some' is not one of resblocks, none"),
        ({"attention": (None,)}, "attention has 1 values, but this net has 2 levels"),
        ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16"),
        ({"quant_convs": False, "code_channels": 5}, "code_channels=5 without quant_convs: expected 0, or latent"),
    ],
)
def test_fields_that_make_no_net_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL.clone(**changes), 8)


@pytest.mark.parametrize(
    ("method", "shape", "message"),
    [
        ("encode", (1, 9, 8, 3), "image size 9x8 cannot be divided by this net: 2 levels"),
        ("encode", (1, 8, 8, 1), "x has 1 channels, in_channels=3 expects 3"),
        ("decode", (1, 4, 4, 6), "z has 6 channels, this decoder reads 3: of means and log variances"),
    ],
)
def test_arrays_of_another_shape_are_refused(method, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros(shape), method=method))
