"""ControlNets as runs: what they begin as, what moves, and that their folder draws what the run draws."""

import dataclasses

import dalle_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from saving import write_model
from test_latent import CAPTIONS, NET, SIDE, SIZE, compose, config_of, toy  # noqa: F401

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import open_source
from flaxgen.family.denoising import Objective
from flaxgen.nets.attention import SpatialTransformer
from flaxgen.train import checkpoint
from flaxgen.weights.tree import leaves_of
from flaxgen.zoo import latent
from flaxgen.zoo.latent import control_runs
from flaxgen.zoo.latent.control_runs import CONTROL, ControlConfig
from flaxgen.zoo.latent.edges import edges

READS = SpatialTransformer(heads=2)
LIKE = NET.clone(attention=(READS,), middle=READS, downsample_padding=(1, 1), time_channels=0)
"""With a middle, as all nets that diffusers' ControlNets steer."""


def test_edges_are_white_at_steps_and_grey_on_slopes():
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:, 4:] = 255
    assert (edges(picture)[..., 0] == np.array([0, 0, 0, 255, 255, 0, 0, 0])).all()
    assert (edges(picture.transpose(1, 0, 2))[..., 2] == edges(picture)[..., 0].T).all()
    slope = np.repeat(np.arange(0, 80, 10, dtype=np.uint8)[:, None, None], 5, 1)
    inner = edges(slope)[1:-1]
    assert inner.shape == (6, 5, 3)
    assert (inner == 20).all(), "twice the step of 10 of 255 from pixel to pixel"


@pytest.fixture(scope="module")
def base(toy, tmp_path_factory):  # noqa: F811
    """A net that can be steered."""
    root = tmp_path_factory.mktemp("steered")
    dalle_toy.write_random(root / "net", config_of(toy, net=LIKE), strength=3.0)
    return root / "net"


def control_config(toy, base, **changes):  # noqa: F811
    config = config_of(toy, net=LIKE, objective=Objective(), steps=2)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return ControlConfig(**fields | {"base": str(base), "hint_widths": (4, 4, 4)} | changes)


def test_a_run_begins_as_the_net_and_first_moves_what_begins_at_zero(toy, base):  # noqa: F811
    config, net = control_config(toy, base), verbs.load(base)
    state = CONTROL.training(config, {})[0](jax.random.key(0))
    own, others = leaves_of(state.params), leaves_of(net.params)
    assert own.keys() == leaves_of(CONTROL.abstract_params(config)).keys()
    for path, leaf in own.items():
        if path in others:
            np.testing.assert_array_equal(leaf, others[path])
        else:
            assert path.startswith(("zero_", "hint/")), path
    rng, spec = np.random.default_rng(0), CONTROL.batch_spec(config)
    batch = {name: jnp.asarray(rng.normal(size=one.shape) * 50, one.dtype) for name, one in spec.items()}
    data = jax.random.key_data(jax.random.split(jax.random.key(1), 8))

    @jax.jit
    def both():
        keys = jax.random.wrap_key_data(data)
        told = {name: value for name, value in batch.items() if name != "hint"}
        plain = latent.FAMILY.make_loss(config, {})(net.params, told, keys)[0]
        loss = control_runs.make_loss(config, {})
        again = jax.random.wrap_key_data(data)
        return plain, jax.value_and_grad(loss, has_aux=True)(state.params, batch, again, state.held)

    plain, ((value, _), slopes) = both()
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    for path, slope in leaves_of(slopes).items():
        assert bool(np.any(slope)) == path.startswith("zero_"), path


def test_its_folder_draws_what_the_run_draws(toy, base, tmp_path):  # noqa: F811
    config = control_config(toy, base)
    params = random_weights.draw_like(CONTROL.abstract_params(config))
    write_model(tmp_path / "run", config, params, 3, CONTROL.prepare(config, {}))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "folder"), "--layout", "diffusers"]) == 0
    assert main(["import", str(tmp_path / "folder"), str(tmp_path / "control")]) == 0
    assert compose(tmp_path / "whole", toy, denoiser=base, controlnet=tmp_path / "control") == 0
    picture = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    whole, run = (flaxgen.load(tmp_path / name) for name in ("whole", "run"))
    found = run.draw(CAPTIONS, num=1, hint=edges(picture)).images
    np.testing.assert_array_equal(whole.draw(CAPTIONS, num=1, hint=picture, hint_edges=True).images, found)
    assert (whole.draw(CAPTIONS, num=1, hint=picture).images != found).any()


def test_hints_are_edges_or_other_pictures(toy, base):  # noqa: F811
    for data in (None, dataclasses.replace(dalle_toy.DATA, seed=7)):
        config = control_config(toy, base, hint_data=data)
        example = CONTROL.open_source(CONTROL, config, CONTROL.prepare(config, {}))[5]
        assert example.keys() == CONTROL.batch_spec(config).keys()
        picture = open_source(data or config.data)[5]["image"]
        np.testing.assert_array_equal(example["hint"], edges(picture) if data is None else picture)


@pytest.mark.slow
def test_only_the_control_net_moves(toy, base, tmp_path):  # noqa: F811
    config, plan = control_config(toy, base), parallel.make_plan("jit")
    longer = dataclasses.replace(config, steps=3, preview_every=3)
    verbs.train(config, tmp_path / "run", plan)
    for place in ("run", "straight"):
        verbs.train(longer, tmp_path / place, plan)
    found = [checkpoint.read(tmp_path / p / "checkpoints", ("params", "held"))[1] for p in ("run", "straight")]
    jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
    jax.tree.map(np.testing.assert_array_equal, found[0]["held"]["frozen"], dict(verbs.load(base).params))
    assert all(np.any(leaf) for path, leaf in leaves_of(found[0]["params"]).items() if path.startswith("zero_"))
    assert list((tmp_path / "run" / "previews").iterdir())


def test_what_does_not_fit_is_said(toy, base):  # noqa: F811
    short = dataclasses.replace(dalle_toy.DATA, size=7)
    for changes, said in (
        ({"base": ""}, "base is not set"),
        ({"hint_widths": (4, 4)}, "controlnet reads hints 2 times as large as latents"),
    ):
        with pytest.raises(ValueError, match=said):
            CONTROL.prepare(dataclasses.replace(control_config(toy, base), **changes), {})
    config = control_config(toy, base, hint_data=short)
    with pytest.raises(ValueError, match="hint_data has 7 pictures and data 24: expected one for each"):
        CONTROL.open_source(CONTROL, config, CONTROL.prepare(config, {}))
    with pytest.raises(ValueError, match=f"hint_data.image_size=8: expected {SIZE}"):
        control_config(toy, base, hint_data=dataclasses.replace(short, image_size=8))
    assert LIKE.image_size == SIDE
