"""What a ControlNet promises beside its numbers, which tests/parity compares with diffusers'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.controlnet import ControlNet
from flaxgen.nets.unet import Residuals, UNet

UNET = UNet(
    image_size=4, in_channels=2, out_channels=2, channels=8, multipliers=(1, 2), depth=1, attention=(), norm_groups=4,
    middle="none", time_channels=8, num_classes=3,
)  # fmt: skip
NET = ControlNet(UNET, hint_widths=(4, 6, 8))
LABEL = jnp.asarray([0, 2], jnp.int32)


def given():
    rng = np.random.default_rng(0)
    x, hint = (jnp.asarray(rng.random(shape), jnp.float32) for shape in ((2, 4, 4, 2), (2, 16, 16, 3)))
    return x, jnp.asarray([3.0, 800.0]), hint


def test_it_begins_as_nothing_and_has_no_way_up():
    """The zero convolutions are all that keeps it from moving the UNet."""
    params = NET.init(jax.random.key(0), *given(), label=LABEL)["params"]
    assert sorted(name for name in params if name.startswith("zero")) == [
        *(f"zero_{i}" for i in range(4)),
        "zero_middle",
    ]
    assert not [name for name in params if name.startswith(("up", "unet", "conv_out"))]
    residuals = NET.apply({"params": params}, *given(), label=LABEL)
    assert all((np.asarray(value) == 0).all() for value in jax.tree.leaves(residuals))


def test_one_hint_is_for_all_of_a_batch(shaken):
    x, time, hint = given()
    params = shaken(NET, x, time, hint, label=LABEL)
    one, both = (
        NET.apply({"params": params}, x, time, given, label=LABEL) for given in (hint[:1], jnp.stack([hint[0]] * 2))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, both)
    assert len({tuple(value.shape) for value in one.skips}) == 3


@pytest.mark.parametrize(
    ("net", "shape", "said"),
    [
        (NET, (2, 8, 8, 3), r"hint has shape \(2, 8, 8, 3\), expected \[2 or 1, 16, 16, 3\]"),
        (NET, (3, 16, 16, 3), r"hint has shape \(3, 16, 16, 3\)"),
        (NET.clone(hint_widths=()), (2, 4, 4, 3), "hint_widths"),
        (NET.clone(unet=UNET.clone(positions=True)), (2, 16, 16, 3), "has no ControlNet"),
    ],
)
def test_what_does_not_fit_is_refused(net, shape, said):
    x, time, _ = given()
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(lambda: net.init(jax.random.key(0), x, time, jnp.zeros(shape), label=LABEL))


def test_residuals_of_another_net_are_refused():
    x, time, _ = given()
    other = Residuals((jnp.zeros((2, 4, 4, 8)),), jnp.zeros((2, 2, 2, 16)))
    with pytest.raises(ValueError, match="they are another net's"):
        jax.eval_shape(lambda: UNET.init(jax.random.key(0), x, time, label=LABEL, residuals=other))
