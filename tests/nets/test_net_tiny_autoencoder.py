"""The tiny autoencoder: its interface, latents that are held, what is refused. Numbers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.tiny_autoencoder import TinyAutoencoder

SMALL = TinyAutoencoder(image_size=8, channels=4, encoder_depth=(1, 2), decoder_depth=(2, 1), latent_channels=3)


def shapes(net, *shape, method="__call__"):
    return jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.zeros(shape), method=method))


def test_published_sizes():
    """Counted in diffusers."""
    pictures, variables = shapes(TinyAutoencoder(), 1, 32, 32, 3)
    assert pictures.shape == (1, 32, 32, 3)
    counts = {k: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(v)) for k, v in variables["params"].items()}
    assert counts == {"encoder": 1_222_532, "decoder": 1_222_531}


def test_latents_have_the_shape_that_properties_say():
    net = SMALL.clone(dtype="bfloat16", encoder_depth=(0, 1, 1), decoder_depth=(1, 1, 0), in_channels=1)
    codes, _ = shapes(net, 2, 16, 8, 1, method="encode")
    assert (codes.shape, codes.dtype) == ((2, 16 // net.factor, 8 // net.factor, net.code_dim), jnp.float32)
    pictures, _ = shapes(net, *codes.shape[:3], net.latent_dim, method="decode")
    assert (pictures.shape, pictures.dtype) == ((2, 16, 8, 1), jnp.float32)


def test_latents_are_held_to_three(shaken):
    """tanh(z/3) 3: what is far out is one picture, what is near differs."""
    params = shaken(SMALL, jnp.zeros((1, 8, 8, 3)))
    decode = jax.jit(lambda z: SMALL.apply({"params": params}, z, method="decode"))
    signs = jnp.sign(jax.random.normal(jax.random.key(0), (1, 4, 4, 3)))
    np.testing.assert_allclose(decode(50 * signs), decode(500 * signs), atol=1e-5)
    assert np.abs(decode(signs) - decode(2 * signs)).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_depth": (1,)}, r"encoder_depth=\(1,\) and decoder_depth=\(2, 1\): expected as many levels"),
        ({"encoder_depth": (), "decoder_depth": ()}, "expected as many levels, one or more"),
        ({"channels": 0}, "channels=0: expected 1 or more"),
    ],
)
def test_fields_that_make_no_net_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL.clone(**changes), 1, 8, 8, 3)


@pytest.mark.parametrize(
    ("method", "shape", "message"),
    [
        ("encode", (1, 9, 8, 3), "image size 9x8 cannot be divided by this net: 2 levels"),
        ("encode", (1, 8, 8, 4), "x has 4 channels, in_channels=3 expects 3"),
        ("decode", (1, 8, 8, 4), "z has 4 channels, this decoder reads 3\n"),
    ],
)
def test_arrays_of_another_shape_are_refused(method, shape, message):
    with pytest.raises(ValueError, match=message):
        shapes(SMALL, *shape, method=method)
