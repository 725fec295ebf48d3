"""Tuning a net over latents: all of its weights, a LoRA's factors alone, and with pictures of its class beside."""

import dataclasses

import dalle_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from saving import write_model
from test_latent import CAPTIONS, VAE, compose, config_of, toy, whole  # noqa: F401

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import open_source
from flaxgen.family.denoising import Objective
from flaxgen.interchange.peft import FILE
from flaxgen.train import checkpoint
from flaxgen.weights.autoencoder_config import Latents
from flaxgen.weights.lora import read_lora
from flaxgen.weights.tree import leaves_of
from flaxgen.zoo import latent
from flaxgen.zoo.latent import lora
from flaxgen.zoo.latent.config import PRIOR, batch_spec
from flaxgen.zoo.latent.lora import factors_of, init_params, merged
from flaxgen.zoo.latent.preservation import Paired, preserving
from flaxgen.zoo.latent.statistics import SCALES

SCALE = 0.5
PRIOR_DATA = dataclasses.replace(dalle_toy.DATA, seed=1, size=30)
LORA = lora.Lora(rank=2, alpha=1.0)


def lora_config(toy, **changes):  # noqa: F811
    config = config_of(toy, objective=Objective(), steps=2)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return lora.LoraConfig(**fields | {"base": str(toy / "net"), "lora": LORA} | changes)


def a_batch(config):
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.normal(size=spec.shape), spec.dtype) for name, spec in batch_spec(config).items()}


def leaves(tree):
    return {path: np.asarray(leaf) for path, leaf in leaves_of(tree).items()}


@pytest.fixture(scope="module")
def imported(toy, tmp_path_factory):  # noqa: F811
    """The config of a run that starts from a net as it is imported: it keeps no scale, and its autoencoder has one."""
    root = tmp_path_factory.mktemp("imported")
    net, vae = verbs.load(toy / "net"), verbs.load(toy / "vae")
    write_model(root / "net", net.config, net.params, 0, {})
    write_model(root / "vae", dataclasses.replace(VAE, latents=Latents(scaling_factor=SCALE)), vae.params, 0)
    return config_of(toy, autoencoder=str(root / "vae"), start=str(root / "net"), steps=1)


def test_an_imported_net_is_tuned_at_the_scale_of_its_autoencoder(imported, toy):  # noqa: F811
    files = latent.FAMILY.prepare(imported, {})
    assert SCALES not in files
    resumed = latent.FAMILY.prepare(dataclasses.replace(imported, start=""), files)
    assert resumed == files
    example = latent.FAMILY.open_source(latent.FAMILY, imported, resumed)[5]
    picture = open_source(imported.data)[5]["image"]
    encoded = verbs.load(toy / "vae").encode(picture[None])[0]
    np.testing.assert_allclose(example["latent"], SCALE * encoded, atol=1e-5)
    parts = latent.family.parts_of_run(latent.FAMILY.trained(imported, {}, files=files))
    np.testing.assert_allclose(parts.scales()[1], SCALE)


@pytest.mark.slow
def test_a_run_from_an_imported_net_moves_all_of_its_weights_a_little(imported, toy, tmp_path):  # noqa: F811
    net = verbs.load(toy / "net")
    verbs.train(imported, tmp_path / "run", parallel.make_plan("jit"))
    assert not (tmp_path / "run" / SCALES).exists()
    _, saved = checkpoint.read(tmp_path / "run" / "checkpoints", ("params",))
    moved, before = leaves(saved["params"]), leaves(net.params)
    assert all(0 < np.abs(moved[path] - before[path]).max() < 1e-3 for path in before)
    assert flaxgen.load(tmp_path / "run").draw(CAPTIONS, num=1, guidance=3.0).images.any()


@pytest.mark.slow
def test_only_factors_move_and_their_file_draws_what_the_run_draws(toy, whole, tmp_path):  # noqa: F811
    config, plan = lora_config(toy), parallel.make_plan("jit")
    verbs.train(config, tmp_path / "run", plan)
    longer = dataclasses.replace(config, steps=3)
    for place in ("run", "straight"):
        verbs.train(longer, tmp_path / place, plan)
    found = [checkpoint.read(tmp_path / p / "checkpoints", ("params", "held"))[1] for p in ("run", "straight")]
    jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
    base = verbs.load(toy / "net")
    jax.tree.map(np.testing.assert_array_equal, found[0]["held"]["frozen"], dict(base.params))
    trained = leaves(found[0]["params"])
    assert len(trained) == 2 * 3 * 8, "two factors of 3 transformers with 4 kernels of 2 attentions"
    assert all(path.split("/")[-3] in ("self_attention", "cross_attention") for path in trained)
    assert all(leaf.any() for leaf in trained.values())

    grown = jax.tree.map(lambda x: 100 * x, verbs.load(tmp_path / "run").params)  # so that pictures show it
    model = verbs.load(tmp_path / "run")
    write_model(tmp_path / "model", model.config, grown, 3, model.files)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "peft"), "--layout", "peft"]) == 0
    drawn = flaxgen.load(tmp_path / "model").draw(CAPTIONS, num=1).images
    with_file = whole.draw(CAPTIONS, num=1, lora=(str(tmp_path / "peft" / FILE),)).images
    np.testing.assert_array_equal(drawn, with_file)
    assert (drawn != whole.draw(CAPTIONS, num=1).images).mean() > 0.1


def test_a_run_begins_with_the_net_and_its_gradient_is_that_of_the_kernel_led_through_down(toy):  # noqa: F811
    """d loss / d up = scale down^T (d loss / d kernel)."""
    config, base = lora_config(toy), verbs.load(toy / "net")
    params = init_params(config, jax.random.key(1))
    adapter = lora.LORA.trained(config, params, files=lora.LORA.prepare(config, {}))
    jax.tree.map(np.testing.assert_array_equal, merged(adapter).params, dict(base.params))
    batch, data = a_batch(config), jax.random.key_data(jax.random.split(jax.random.key(0), 8))
    of_net, of_lora = latent.FAMILY.make_loss(config, {}), lora.LORA.make_loss(config, {})

    @jax.jit
    def gradients(params, kernels):
        held = flaxgen.types.Held(frozen=kernels)
        plain = jax.grad(of_net, has_aux=True)(kernels, batch, jax.random.wrap_key_data(data))[0]
        return plain, jax.grad(of_lora, has_aux=True)(params, batch, jax.random.wrap_key_data(data), held)[0]

    small = jax.tree.map(lambda x: x / 3, base.params)  # as large ones lose digits
    plain, found = map(leaves, gradients(params, small))
    for path, (down, _, scale) in factors_of(config, params).items():
        stem = path.removesuffix("/kernel")
        assert scale == 0.5
        expected = scale * down.T @ plain[path]
        np.testing.assert_allclose(found[f"{stem}/up"], expected, atol=1e-4 * np.abs(expected).max())
        assert not found[f"{stem}/down"].any(), "up is 0"


@pytest.mark.parametrize(("where", "count"), [("attention", 3 * 8), ("blocks", 3 * 10), ("all", 51)])
def test_files_have_the_factors_of_every_kernel_that_was_chosen(where, count, toy, tmp_path):  # noqa: F811
    config = lora_config(toy, lora=lora.Lora(rank=3, alpha=6.0, where=where))
    params = random_weights.draw_like(lora.LORA.abstract_params(config))
    model = lora.LORA.trained(config, params)
    peft_layout().write(model, tmp_path / "peft")
    found = read_lora(tmp_path / "peft" / FILE, {"unet": config.net})["unet"]
    expected = factors_of(config, params)
    assert found.keys() == expected.keys()
    assert len(found) == count
    for path, (down, up, scale) in expected.items():
        np.testing.assert_allclose(found[path].down, down)
        np.testing.assert_allclose(found[path].up * found[path].scale, up * scale, rtol=1e-6)


def peft_layout():
    return next(layout for layout in verbs.LAYOUTS if layout.name == "peft")


def test_the_shorter_of_paired_sources_begins_again(toy):  # noqa: F811
    config = config_of(toy, prior_data=PRIOR_DATA)
    files = latent.FAMILY.prepare(config, {})
    paired = latent.FAMILY.open_source(latent.FAMILY, config, files)
    assert isinstance(paired, Paired)
    assert len(paired) == 30
    own, other = (
        latent.FAMILY.open_source(latent.FAMILY, dataclasses.replace(config, data=data, prior_data=None), files)
        for data in (config.data, PRIOR_DATA)
    )
    example = paired[25]
    assert example.keys() == batch_spec(config).keys()
    for name, value in own[1].items():
        np.testing.assert_array_equal(example[name], value)
        np.testing.assert_array_equal(example[PRIOR + name], other[25][name])


def test_the_loss_of_class_pictures_is_added_with_its_weight():
    """For a loss that is known: the mean of latent + noise, of which each example and class picture has its own."""

    def loss(params, batch, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, ()))(keys)
        value = jnp.mean(batch["latent"] + params * noise)
        return value, {"loss": value, "mse": value}

    batch = {"latent": jnp.asarray([1.0, 3.0]), f"{PRIOR}latent": jnp.asarray([10.0, 30.0])}
    data = jax.random.key_data(jax.random.split(jax.random.key(0), 2))

    @jax.jit  # where the reuse of keys is seen
    def total(noise):
        return preserving(loss, 0.5)(noise, batch, jax.random.wrap_key_data(data))

    value, metrics = total(0.0)
    assert (float(value), float(metrics["own"]), float(metrics["prior"])) == (12.0, 2.0, 20.0)
    assert metrics["loss"] == value
    noised = total(1.0)[1]
    assert float(noised["own"]) - 2 != pytest.approx(float(noised["prior"]) - 20, abs=1e-3)


@pytest.mark.slow
def test_a_step_on_a_mesh_is_a_step_on_one_device(toy, tmp_path):  # noqa: F811
    net = verbs.load(toy / "net")
    small = jax.tree.map(lambda x: x / 3, net.params)  # as large ones lose digits
    write_model(tmp_path / "net", net.config, small, 1, net.files)
    config, found = lora_config(toy, prior_data=PRIOR_DATA, prior_weight=0.7, base=str(tmp_path / "net")), []
    batch = {name: np.asarray(value) for name, value in a_batch(config).items()}
    for plan in (parallel.jit_plan(), parallel.mesh_plan(data=4, fsdp=2), parallel.pmap_plan()):
        init, make_step = lora.LORA.training(config, {})
        state = plan.place_state(init(jax.random.key(0)))
        state, metrics = plan.compile_step(make_step)(state, plan.place_batch(batch), jax.random.key(1))
        after = jax.device_get(plan.single(state))
        jax.tree.map(np.testing.assert_array_equal, after.held.frozen, dict(small))
        found.append((after.params, {name: float(value) for name, value in metrics.items()}))
    for ours, said in found[1:]:
        assert said == pytest.approx(found[0][1], rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, found[0][0])


def test_what_does_not_fit_is_said(toy, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="base is not set"):
        lora.LORA.prepare(lora_config(toy, base=""), {})
    net = config_of().net
    other = net.clone(attention=(dataclasses.replace(net.attention[0], heads=4),))
    with pytest.raises(ValueError, match=r"net\.attention=.*heads=4.* has .*heads=2.*, set it alike"):
        lora.LORA.prepare(lora_config(toy, net=other), {})
    with pytest.raises(ValueError, match="set it alike"):
        latent.FAMILY.prepare(config_of(toy, net=other, start=str(toy / "net")), {})
    config = lora_config(toy)
    base = verbs.load(toy / "net")
    write_model(tmp_path / "net", base.config, jax.tree.map(lambda x: -x, base.params), 1, base.files)
    files = lora.LORA.prepare(config, {})
    with pytest.raises(ValueError, match="was trained with the base"):
        lora.LORA.prepare(dataclasses.replace(config, base=str(tmp_path / "net")), files)
    with pytest.raises(ValueError, match="rank=0: expected 1 or more"):
        lora.Lora(rank=0)
    with pytest.raises(ValueError, match=r"prior_weight=-1\.0: expected"):
        config_of(prior_weight=-1.0)
    with pytest.raises(ValueError, match="no such kernels"):
        init_params(lora_config(toy, net=net.clone(attention=(None,), token_dim=0)), jax.random.key(0))
