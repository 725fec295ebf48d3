"""Layers against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets import layers


def group_norm(x, groups, eps, gamma, beta):
    """[Wu18, eq. 1] in float64."""
    x = np.asarray(x, np.float64)
    grouped = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    return ((grouped - mean) / np.sqrt(var + eps)).reshape(x.shape) * np.asarray(gamma) + np.asarray(beta)


@pytest.mark.parametrize(("shape", "groups"), [((2, 5, 3, 12), 4), ((2, 5, 3, 12), 12), ((2, 7, 12), 4), ((3, 12), 1)])
def test_group_norm(shape, groups, shaken, run):
    x = 3 + 2 * jax.random.normal(jax.random.key(1), shape)
    norm = layers.GroupNorm(groups, 1e-5)
    params = shaken(norm, x)
    expected = group_norm(x, groups, 1e-5, params["scale"], params["bias"])
    np.testing.assert_allclose(run(norm, params, x), expected, atol=2e-5)


def test_group_norm_with_scale_and_shift(shaken, run):
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (2, 4, 4, 8))
    scale, shift = (jax.random.normal(key, (2, 8)) for key in keys[1:])
    norm = layers.GroupNorm(2, 1e-5)
    params = shaken(norm, x)
    plain = group_norm(x, 2, 1e-5, params["scale"], params["bias"])
    expected = plain * (1 + np.asarray(scale)[:, None, None]) + np.asarray(shift)[:, None, None]
    np.testing.assert_allclose(run(norm, params, x, scale, shift), expected, atol=2e-5)


def test_group_norm_far_from_zero(run):
    """A mean 1,000 times the deviation loses three digits of seven, not all of them."""
    x = 1000 + jax.random.normal(jax.random.key(1), (2, 16, 16, 8))
    norm = layers.GroupNorm(2, 1e-5)
    out = run(norm, {"scale": jnp.ones(8), "bias": jnp.zeros(8)}, x)
    np.testing.assert_allclose(out, group_norm(x, 2, 1e-5, 1.0, 0.0), atol=2e-3)


def test_group_norm_keeps_its_statistics_in_float32(run):
    x = (10 + jax.random.normal(jax.random.key(1), (1, 32, 32, 4))).astype(jnp.bfloat16)
    params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    out = run(layers.GroupNorm(1, 1e-5, jnp.bfloat16), params, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), group_norm(x.astype(jnp.float32), 1, 1e-5, 1.0, 0.0), atol=0.02)


def test_group_norm_names_what_does_not_divide():
    with pytest.raises(ValueError, match="norm_groups=5 does not divide 12 channels"):
        layers.GroupNorm(5, 1e-5).init(jax.random.key(0), jnp.ones((1, 2, 2, 12)))


def softmax_attention(query, key, value, visible):
    """[Vaswani17, eq. 1] in float64, loops for heads and batch."""
    query, key, value = (np.asarray(a, np.float64) for a in (query, key, value))
    out = np.zeros(query.shape)
    for b in range(query.shape[0]):
        for n in range(query.shape[2]):
            logits = query[b, :, n] @ key[b, :, n].T / np.sqrt(query.shape[-1])
            weights = np.exp(logits) * np.asarray(visible)[b]
            out[b, :, n] = weights / weights.sum(-1, keepdims=True) @ value[b, :, n]
    return out


def test_attention_and_its_mask():
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (2, 5, 3, 4))
    key, value = (jax.random.normal(k, (2, 7, 3, 4)) for k in keys[1:])
    every, some = jnp.ones((2, 7), bool), jnp.arange(14).reshape(2, 7) % 3 > 0
    plain = jax.jit(layers.attention)(query, key, value)
    np.testing.assert_allclose(plain, softmax_attention(query, key, value, every), atol=1e-5)
    masked = jax.jit(layers.attention)(query, key, value, some[:, None, None])
    np.testing.assert_allclose(masked, softmax_attention(query, key, value, some), atol=1e-5)


def test_heads_are_runs_of_channels():
    x = jnp.arange(12.0).reshape(1, 1, 12)
    np.testing.assert_array_equal(layers.split_heads(x, 3)[0, 0], np.arange(12).reshape(3, 4))


def test_count_heads():
    assert layers.count_heads(12, 3, 0) == 3
    assert layers.count_heads(12, 3, 2) == 6
    for heads, head_channels, name in ((5, 0, "heads=5"), (0, 0, "heads=0"), (1, 8, "head_channels=8")):
        with pytest.raises(ValueError, match=f"^{name} does not divide the 12 channels"):
            layers.count_heads(12, heads, head_channels)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("channels", [6, 7])
def test_sinusoidal(channels, shift):
    time = np.array([0.0, 1.0, 17.25, 999.0], np.float32)
    half = channels // 2
    angles = time[:, None].astype(np.float64) * 10_000.0 ** (-np.arange(half) / (half - shift))
    sin_cos = np.concatenate((np.sin(angles), np.cos(angles), np.zeros((4, channels % 2))), axis=1)
    cos_sin = np.concatenate((np.cos(angles), np.sin(angles), np.zeros((4, channels % 2))), axis=1)
    both = jax.jit(lambda time: [layers.sinusoidal(time, channels, order, shift) for order in layers.ORDERS])(time)
    np.testing.assert_allclose(both[0], sin_cos, atol=2e-4)
    np.testing.assert_allclose(both[1], cos_sin, atol=2e-4)


def test_places_are_rows_and_columns():
    places = np.asarray(layers.sinusoidal_places(3, 5, 7))
    assert places.shape == (3, 5, 7)
    np.testing.assert_array_equal(places[:, :, :3], np.broadcast_to(places[:, :1, :3], (3, 5, 3)))
    np.testing.assert_array_equal(places[:, :, 3:], np.broadcast_to(places[:1, :, 3:], (3, 5, 4)))
    np.testing.assert_allclose(places[2, 4, [0, 3]], np.sin([2.0, 4.0]), atol=1e-6)
    assert len(np.unique(places.reshape(15, 7), axis=0)) == 15


def test_fourier_frequencies_are_not_trained(run):
    fourier, time = layers.Fourier(4), jnp.array([0.5, 2.0])
    params = fourier.init(jax.random.key(0), time)
    angles = 2 * np.pi * np.log(np.asarray(time))[:, None] * np.asarray(params["params"]["frequencies"])
    expected = np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
    np.testing.assert_allclose(run(fourier, params["params"], time), expected, atol=1e-3)
    gradient = jax.grad(lambda p: jnp.sum(jnp.asarray(fourier.apply(p, time)) ** 3))(params)
    assert not np.any(gradient["params"]["frequencies"])


def test_conditions_add_up(shaken, run):
    """time MLP + row of the table + linear map of the embedding, each by hand."""
    net = layers.Conditioning(6, 8, num_classes=3, embedding_dim=5)
    time, label, embedding = jnp.array([3.0, 40.0]), jnp.array([2, 0]), jax.random.normal(jax.random.key(2), (2, 5))
    params = shaken(net, time, label, embedding)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    waves = jax.jit(layers.sinusoidal, static_argnums=1)(time, 6)
    h = np.asarray(waves, np.float64) @ p["time_1"]["kernel"] + p["time_1"]["bias"]
    h = h / (1 + np.exp(-h)) @ p["time_2"]["kernel"] + p["time_2"]["bias"]
    h = h + p["label"]["embedding"][[2, 0]]
    h = h + np.asarray(embedding) @ p["embedding"]["kernel"] + p["embedding"]["bias"]
    np.testing.assert_allclose(run(net, params, time, label, embedding), h, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "conditions", "message"),
    [
        ({"num_classes": 3}, {}, "num_classes=3 and needs the condition 'label'"),
        ({}, {"label": jnp.zeros(1, int)}, "num_classes=0 and takes no condition 'label'"),
        ({"embedding_dim": 4}, {}, "embedding_dim=4 and needs the condition 'embedding'"),
        ({}, {"embedding": jnp.ones((1, 4))}, "embedding_dim=0 and takes no condition 'embedding'"),
        ({"embedding_dim": 4}, {"embedding": jnp.ones((1, 3))}, "'embedding' is 3 wide, embedding_dim=4"),
        ({"time_order": "sin"}, {}, "time_order='sin' is not one of sin_cos, cos_sin"),
        ({"time_embedding": "learned"}, {}, "time_embedding='learned' is not one of sinusoidal, fourier"),
    ],
)
def test_conditions_and_fields_have_to_agree(fields, conditions, message):
    net = layers.Conditioning(4, 4, **fields)
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.ones(1), **conditions))
    assert "\n" not in str(caught.value)
