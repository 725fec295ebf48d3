"""What a UNet promises beside its numbers, which tests/parity compares with diffusers'."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.attention import ATTENTIONS, SelfAttention, SpatialTransformer, TokenAttention
from flaxgen.nets.unet import UNet, resize_to
from flaxgen.train.config import decode, encode

HEADS, TOKENS = SelfAttention(head_channels=8), TokenAttention(head_channels=8)
TINY = UNet(
    image_size=8,
    channels=8,
    multipliers=(1, 2),
    depth=1,
    attention=(None, HEADS),
    middle=HEADS,
    norm_groups=4,
    dropout=0.5,
)
FLAT = TINY.clone(multipliers=(1,), attention=(), middle="none")
TOLD = TINY.clone(
    dropout=0.0, num_classes=3, embedding_dim=5, token_dim=6, low_res=True, patch=2, learned_variance=True,
    image_size=16, scale_shift=True, resample="resnet", time_order="cos_sin", time_shift=0, vector_dim=7,
    attention=(None, TOKENS), middle=TOKENS,
)  # fmt: skip


def keys(n):
    return jax.random.split(jax.random.key(3), n)


def noisy(batch, size=8):
    return jax.random.normal(jax.random.key(1), (batch, size, size, 3)), jnp.linspace(0.0, 999.0, batch)


def conditions(batch):
    embedding_key, tokens_key, low_res_key, vector_key = keys(4)
    return {
        "label": jnp.arange(batch) % 3,
        "embedding": jax.random.normal(embedding_key, (batch, 5)),
        "tokens": jax.random.normal(tokens_key, (batch, 4, 6)),
        "token_mask": jnp.arange(batch * 4).reshape(batch, 4) % 3 > 0,
        "low_res": jax.random.normal(low_res_key, (batch, 5, 5, 3)),
        "vector": jax.random.normal(vector_key, (batch, 7)),
    }


@pytest.fixture(scope="module")
def tiny(shaken):
    return shaken(TINY, *noisy(1))


@pytest.fixture(scope="module")
def told(shaken):
    return shaken(TOLD, *noisy(1, 16), **conditions(1))


def abstract(net, batch=1, size=8, **given):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), *noisy(batch, size), **given))["params"]


def test_parameters_of_the_papers():
    """DDPM's CIFAR-10 net has 35.7M [Ho20, app. B], ADM's 64 px net 296M [Dhariwal21, table 4], its 512 px net of
    256 channels begins with 128 and has 558M."""
    value, label = SelfAttention(head_channels=64), jnp.zeros(1, int)
    adm = UNet(
        image_size=64, channels=192, multipliers=(1, 2, 3, 4), depth=3, attention=(None, value, value, value),
        middle=value, num_classes=1000, learned_variance=True, scale_shift=True, resample="resnet",
    )  # fmt: skip
    adm_512 = adm.clone(
        image_size=512, channels=256, multipliers=(0.5, 1, 1, 2, 2, 4, 4), conv_in_channels=128, depth=2,
        attention=(None, None, None, None, value, value, value), num_classes=0,
    )  # fmt: skip
    counts = [abstract(UNet(), 1, 32), abstract(adm, 1, 64, label=label), abstract(adm_512, 1, 64)]
    assert [sum(x.size for x in jax.tree.leaves(tree)) for tree in counts] == [
        35_746_307,
        pytest.approx(296e6, rel=1e-3),
        557_973_638,
    ]


def test_starts_at_zero():
    """The last conv is zero, so the first prediction is too [Ho20, app. B]."""
    conv_out = jax.jit(lambda: TINY.init(jax.random.key(0), *noisy(2))["params"]["conv_out"])()
    assert conv_out["kernel"].shape == (3, 3, 8, 3)
    assert not any(leaf.any() for leaf in jax.tree.leaves(conv_out))


def test_one_example_one_key(tiny):
    """Mapped over single examples: what is dropped depends on an example's key, and not on its place."""

    def one(x, t, key):
        rngs = {"dropout": key}
        return jnp.asarray(TINY.apply({"params": tiny}, x[None], t[None], train=True, rngs=rngs))[0]

    x, t = noisy(4)
    mapped, order = jax.jit(jax.vmap(one)), np.array([2, 0, 3, 1])
    out = mapped(x, t, keys(4))
    np.testing.assert_allclose(mapped(x[order], t[order], keys(4)[order]), out[order], atol=1e-5)
    same = mapped(x[:1].repeat(4, 0), t[:1].repeat(4), keys(4))
    assert np.abs(same[0] - same[1]).max() > 1e-2


def test_a_batch_is_its_examples(told):
    """Every condition reaches its own example and no other, without compiling again."""
    x, t = noisy(3, 16)
    given = conditions(3)
    apply: Any = jax.jit(lambda x, t, c: TOLD.apply({"params": told}, x, t, **c))
    out = apply(x, t, given)
    assert out.shape == (3, 16, 16, 6)
    for name in given:
        changed = apply(x, t, given | {name: given[name][np.array([0, 2, 1])]})
        np.testing.assert_allclose(changed[0], out[0], atol=1e-4)
        assert np.abs(changed[1] - out[1]).max() > 1e-3, name
    changed = apply(x, t[np.array([0, 2, 1])], given)
    np.testing.assert_allclose(changed[0], out[0], atol=1e-4)
    assert np.abs(changed[1] - out[1]).max() > 1e-3
    assert apply._cache_size() == 1


def test_bfloat16_computes_and_float32_keeps(shaken):
    half, (x, t) = FLAT.clone(dtype="bfloat16"), noisy(2)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(half))} == {jnp.dtype("float32")}
    params = shaken(FLAT, x, t)
    exact, found = (jax.jit(lambda net=net: net.apply({"params": params}, x, t))() for net in (FLAT, half))
    assert found.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2)))
    assert 1e-4 < error < 0.05


def test_remat_changes_memory_only(shaken):
    x, t = noisy(1)
    params = shaken(FLAT, x, t)

    def gradient(net):
        def loss(params):
            return jnp.mean(net.apply({"params": params}, x, t, train=True, rngs={"dropout": keys(1)[0]}) ** 2)

        return jax.jit(jax.grad(loss))

    plain, again = gradient(FLAT), gradient(FLAT.clone(remat=True))
    assert "remat" in str(again.trace(params).jaxpr)
    assert "remat" not in str(plain.trace(params).jaxpr)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3), plain(params), again(params))


def test_other_sizes_than_its_own(tiny):
    x, t = jnp.ones((1, 4, 12, 3)), jnp.ones(1)
    assert jax.eval_shape(lambda: TINY.apply({"params": tiny}, x, t)).shape == x.shape


def test_places_are_told(shaken, run):
    """Far from the borders a flat picture is the same everywhere, but for a net that is told where that is."""
    x, t = jnp.full((1, 32, 32, 3), 0.5), jnp.zeros(1)
    net = FLAT.clone(dropout=0.0, depth=1)
    told = net.clone(positions=True)
    params = shaken(told, x, t)
    middle = np.asarray(run(told, params, x, t))[0, 12:20, 12:20]
    assert np.abs(middle - middle[0, 0]).max() > 1e-2
    without = {name: value for name, value in params.items() if name != "positions"}
    middle = np.asarray(run(net, without, x, t))[0, 12:20, 12:20]
    np.testing.assert_allclose(middle, np.broadcast_to(middle[0, 0], middle.shape), atol=1e-4)


def test_low_resolution_is_resized():
    low, x = jnp.full((2, 4, 4, 3), 0.25), jnp.zeros((2, 16, 16, 3))
    np.testing.assert_allclose(resize_to(low, x), np.full(x.shape, 0.25), atol=1e-6)


def test_fields_are_plain_values():
    known = {kind.__name__: kind for kind in (UNet, *ATTENTIONS)}
    latent = TOLD.clone(attention=(SpatialTransformer(depth=2, linear=True), None), middle="resblocks", depth=(1, 2))
    for net in (TOLD, latent):
        assert decode(json.loads(json.dumps(encode(net, known))), known) == net


@pytest.mark.parametrize(
    ("fields", "given", "message"),
    [
        ({"multipliers": (1, 1, 1, 1, 1), "attention": ()}, {}, "image size 8x8 .* multiple of 16"),
        ({"patch": 3, "attention": ()}, {}, "image size 8x8 .* patch=3 need a multiple of 6"),
        ({"attention": (None, None, HEADS)}, {}, "attention has 3 values, but this net has 2 levels"),
        ({"depth": (1,)}, {}, "depth has 1 values, but this net has 2 levels"),
        ({"channels": 0}, {}, "channels=0: expected 1 or more"),
        ({"channels": -8}, {}, "channels=-8: expected 1 or more"),
        ({"multipliers": (), "attention": ()}, {}, r"channels=8 times multipliers=\(\): expected levels of 1 channel"),
        ({"multipliers": (1, 0)}, {}, r"multipliers=\(1, 0\): expected levels of 1 channel"),
        ({"norm_groups": 0}, {}, "norm_groups=0: expected 1 or more"),
        ({"patch": 0}, {}, "patch=0: expected 1 or more"),
        ({"norm_groups": 32}, {}, "norm_groups=32 does not divide 8 channels"),
        ({"middle": SelfAttention(head_channels=3)}, {}, "head_channels=3 does not divide the 16 channels"),
        ({"middle": SelfAttention(heads=3)}, {}, "heads=3 does not divide the 16 channels"),
        ({"resample": "fir"}, {}, "resample='fir' is not one of conv, resnet"),
        ({"middle": "cross"}, {}, "middle='cross' is not one of resblocks, none"),
        ({"activation": "relu"}, {}, "activation='relu' is not one of silu, gelu, gelu_tanh, gelu_new, quick_gelu"),
        ({"middle": TOKENS}, {}, "token_dim=0, but this net's attention reads tokens"),
        ({"dtype": "float16"}, {}, "dtype='float16' is not one of float32, bfloat16"),
        ({"in_channels": 1}, {}, "x has 3 channels, in_channels=1"),
        ({"num_classes": 4}, {}, "num_classes=4 and needs the condition 'label'"),
        ({}, {"label": jnp.zeros(1, int)}, "num_classes=0 and takes no condition 'label'"),
        ({"token_dim": 6}, {}, "token_dim=6 and needs the condition 'tokens'"),
        ({"token_dim": 6}, {"tokens": jnp.ones((1, 2, 5))}, "'tokens' is 5 wide, token_dim=6 expects 6"),
        ({}, {"tokens": jnp.ones((1, 2, 5))}, "token_dim=0 and takes no condition 'tokens'"),
        ({}, {"token_mask": jnp.ones((1, 2), bool)}, "'token_mask' is given without 'tokens'"),
        ({"low_res": True}, {}, "low_res=True and needs the condition 'low_res'"),
        ({}, {"low_res": jnp.ones((1, 4, 4, 3))}, "low_res=False and takes no condition 'low_res'"),
    ],
)
def test_what_is_wrong_is_named(fields, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        abstract(TINY.clone(**fields), **given)
    assert "\n" not in str(caught.value)
