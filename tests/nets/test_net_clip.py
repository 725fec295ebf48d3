"""CLIP: who sees what, which token speaks for a caption, and the loss over the global batch. Numbers: tests/parity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import parallel
from flaxgen.nets.clip import CLIP, TextTower, VisionTower, contrastive_loss, false_caption_loss, normalise

LENGTH, BATCH = 6, 16
TINY = CLIP(
    vision=VisionTower(image_size=8, patch=4, width=16, depth=1, heads=2),
    text=TextTower(vocab_size=20, context=LENGTH, width=12, depth=1, heads=2),
    embedding_dim=10,
)
SHALLOW = TINY.clone(vision=TINY.vision.clone(depth=0), text=TINY.text.clone(depth=0))
"""What is compiled for eight devices has all but the blocks, which know nothing of other examples."""
IMAGES = jax.random.uniform(jax.random.key(0), (BATCH, 8, 8, 3), minval=-1)
IDS = jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 0, 20)
MASK = jnp.arange(LENGTH)[None] <= jax.random.randint(jax.random.key(2), (BATCH, 1), 1, LENGTH)


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(net, params, inputs, method="__call__"):
    return net.apply({"params": params}, *inputs, method=method)


@pytest.fixture(scope="module")
def params(shaken):
    return shaken(TINY, IMAGES, IDS, MASK)


def test_a_token_sees_those_before_it(params):
    hidden = apply(TINY, params, (IDS, MASK), "encode_text").hidden
    for place in range(LENGTH):
        other = IDS.at[:, place].set((IDS[:, place] + 7) % 20)
        moved = np.abs(apply(TINY, params, (other, MASK), "encode_text").hidden - hidden).max((0, 2))
        assert (moved[:place] == 0).all()
        assert (moved[place:] > 1e-4).all()


def test_the_last_token_of_a_caption_speaks_for_it(params):
    encoding = apply(TINY, params, (IDS, MASK), "encode_text")
    last = np.asarray(MASK).sum(1) - 1
    expected = np.asarray(encoding.hidden)[np.arange(BATCH), last] @ params["text_projection"]["kernel"]
    np.testing.assert_allclose(encoding.embedding, expected, atol=1e-5)
    padded = jnp.where(MASK, IDS, 0)
    np.testing.assert_array_equal(apply(TINY, params, (padded, MASK), "encode_text").embedding, encoding.embedding)


def test_what_tokens_and_places_start_as():
    wide = TextTower(vocab_size=500, context=100, width=32, depth=0, heads=2)
    for tower, token_std, position_std in ((wide, 0.02, 0.01), (wide.clone(token_std=0.5, position_std=0.3), 0.5, 0.3)):
        params = tower.init(jax.random.key(0), IDS)["params"]
        assert np.std(params["tokens"]["embedding"]) == pytest.approx(token_std, rel=0.03)
        assert np.std(params["positions"]) == pytest.approx(position_std, rel=0.05)
    seeing = VisionTower(image_size=32, patch=2, width=64, depth=0, heads=2)
    for position_std, expected in ((0.0, 1 / 8), (0.5, 0.5)):
        params = seeing.clone(position_std=position_std).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
        assert np.std(params["positions"]) == pytest.approx(expected, rel=0.05)


def test_fewer_tokens_than_the_context(params):
    """A prefix reads as it does in front of anything else."""
    whole = apply(TINY, params, (IDS, MASK), "encode_text").hidden
    part = apply(TINY, params, (IDS[:, :3], MASK[:, :3]), "encode_text").hidden
    np.testing.assert_allclose(part, whole[:, :3], atol=1e-5)


def test_patches_are_known_by_their_positions_alone(params):
    """Patches that change places together with their positions are the same picture."""
    order = np.array([2, 0, 3, 1])
    patches = IMAGES.reshape(BATCH, 2, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(BATCH, 4, 4, 4, 3)
    swapped = patches[:, order].reshape(BATCH, 2, 2, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(IMAGES.shape)
    positions = params["vision"]["positions"]
    moved = params | {"vision": params["vision"] | {"positions": positions[np.concatenate(([0], 1 + order))]}}
    plain = apply(TINY, params, (IMAGES,), "encode_image")
    np.testing.assert_allclose(apply(TINY, moved, (swapped,), "encode_image"), plain, atol=1e-5)
    assert np.abs(apply(TINY, params, (swapped,), "encode_image") - plain).max() > 1e-2


def test_pixels_are_brought_to_mean_and_deviation(params):
    """A net whose mean and deviation are 1/2 takes [-1, 1] as it is."""
    mean, std = (np.array(value)[None, None, None] for value in (TINY.mean, TINY.std))
    plain = TINY.clone(mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = ((np.asarray(IMAGES, np.float64) + 1) / 2 - mean) / std
    expected = apply(plain, params, (jnp.asarray(pixels, jnp.float32),), "encode_image")
    np.testing.assert_allclose(apply(TINY, params, (IMAGES,), "encode_image"), expected, atol=1e-5)


def test_the_logit_scale_starts_at_the_papers_and_has_a_ceiling():
    inputs = (IMAGES, IDS, MASK)
    fresh = jax.jit(lambda: SHALLOW.init(jax.random.key(0), *inputs))()["params"]
    for start, scale in ((fresh["logit_scale"], 1 / 0.07), (jnp.float32(5.0), 100)):
        assert apply(SHALLOW, fresh | {"logit_scale": start}, inputs)[2] == pytest.approx(scale)
    # at the ceiling and beyond it the gradient stays, so that the parameter can come back
    slope = jax.jit(jax.grad(lambda raw: SHALLOW.apply({"params": fresh | {"logit_scale": raw}}, *inputs)[2]))
    for start, expected in ((np.log(50), 50), (np.log(100), 100), (5.0, 100)):
        assert slope(jnp.float32(start)) == pytest.approx(expected)


def test_bfloat16_and_remat(params):
    """bfloat16 has three digits, and its results come as float32; remat changes no number."""
    inputs = (IMAGES, IDS, MASK)
    plain = apply(TINY, params, inputs)
    towers = {"vision": TINY.vision, "text": TINY.text}
    half = TINY.clone(**{name: tower.clone(dtype="bfloat16") for name, tower in towers.items()})
    for out, expected in zip(apply(half, params, inputs), plain, strict=True):
        assert out.dtype == jnp.float32
        assert 0 < np.abs(out - expected).max() < 0.1 or expected.shape == ()
    again = TINY.clone(**{name: tower.clone(remat=True) for name, tower in towers.items()})
    for out, expected in zip(apply(again, params, inputs), plain, strict=True):
        np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "inputs", "method", "message"),
    [
        ({"vision": None}, (IMAGES,), "encode_image", "no vision tower"),
        ({"text": None}, (IDS, MASK), "encode_text", "no text tower"),
        ({"text": None}, (IMAGES, IDS, MASK), "__call__", "no text tower"),
        ({}, (jnp.ones((1, 8, 4, 3)),), "encode_image", "for pictures of 8x8x3, got 8x4x3: resize them"),
        ({}, (jnp.ones((1, 7), int), jnp.ones((1, 7), bool)), "encode_text", "7 tokens are more than the context=6"),
        ({"vision": VisionTower(8, 3)}, (IMAGES,), "encode_image", "patch=3 does not divide image_size=8"),
        ({"vision": VisionTower(8, 4, 16, 1, 3)}, (IMAGES,), "encode_image", "heads=3 does not divide"),
        ({"text": TextTower(dtype="half")}, (IDS, MASK), "encode_text", "dtype='half' is not one of"),
    ],
)
def test_what_does_not_fit_is_named(changes, inputs, method, message):
    net = TINY.clone(**changes)
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, method=method))
    assert "\n" not in str(caught.value)


def by_hand(image, text, scale):
    """[Radford21, fig. 3] in float64: loss, image to text and text to image accuracy."""
    image, text = (np.asarray(x, np.float64) for x in (image, text))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    logits = float(scale) * image @ text.T
    losses, hits = [], []
    for rows in (logits, logits.T):
        p = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
        losses.append(-np.log(np.diag(p)).mean())
        hits.append((rows.argmax(1) == np.arange(len(rows))).mean())
    return np.mean(losses), *hits


def test_the_loss_is_the_papers():
    image, text = jax.random.normal(jax.random.key(3), (2, BATCH, 10))
    text = text + image
    loss, metrics = jax.jit(contrastive_loss)(image, text, 14.0)
    expected, image_to_text, text_to_image = by_hand(image, text, 14.0)
    assert 0 < image_to_text < 1
    assert image_to_text != text_to_image
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["image_to_text"], image_to_text)
    np.testing.assert_allclose(metrics["text_to_image"], text_to_image)
    assert metrics["logit_scale"] == 14


def test_a_picture_is_told_from_its_own_false_captions():
    image, text = jax.random.normal(jax.random.key(3), (2, BATCH, 10))
    near = image[:, None] * (jnp.arange(BATCH) < 4)[:, None, None]
    false = jax.random.normal(jax.random.key(4), (BATCH, 3, 10)) + near
    loss, metrics = jax.jit(false_caption_loss)(image, text + image, false, 7.0)
    expected, right = 0.0, 0
    for i in range(BATCH):
        candidates = np.concatenate(((text + image)[i][None], false[i])).astype(np.float64)
        cosines = candidates @ image[i] / np.linalg.norm(candidates, axis=1) / np.linalg.norm(image[i])
        expected += (np.log(np.exp(7.0 * cosines).sum()) - 7.0 * cosines[0]) / BATCH
        right += cosines.argmax() == 0
    assert 0 < right < BATCH
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["true_to_false"], right / BATCH)
    np.testing.assert_allclose(jax.jit(false_caption_loss)(image, text, false, 0.0)[0], np.log(4), rtol=1e-6)


def test_the_loss_knows_no_lengths_and_no_order():
    image, text = jax.random.normal(jax.random.key(3), (2, BATCH, 10))
    loss, _ = jax.jit(contrastive_loss)(image, text, 5.0)
    order = np.random.default_rng(0).permutation(BATCH)
    np.testing.assert_allclose(jax.jit(contrastive_loss)(3 * image[order], text[order] / 7, 5.0)[0], loss, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(contrastive_loss)(image, text, 0.0)[0], np.log(BATCH), rtol=1e-6)


def test_normalise_at_zero():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(normalise(x)))(jnp.zeros((1, 3)))
    assert value == 0
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(normalise(jnp.array([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)


def make_gradients(axis_name):
    """A step whose new state are the gradients of the global loss."""

    def loss(params, batch):
        inputs = (batch["images"], batch["ids"], batch["mask"])
        return contrastive_loss(*SHALLOW.apply({"params": params}, *inputs), axis_name=axis_name)

    def step(params, batch, key):
        gradients, metrics = jax.grad(loss, has_aux=True)(params, batch)
        return parallel.mean_over(axis_name, (gradients, metrics))

    return step


@pytest.fixture(scope="module")
def shallow(shaken):
    return shaken(SHALLOW, IMAGES, IDS, MASK)


@pytest.fixture(scope="module")
def global_gradients(shallow):
    batch = {"images": IMAGES, "ids": IDS, "mask": MASK}
    return jax.jit(make_gradients(None))(shallow, batch, jax.random.key(0))


@pytest.mark.parametrize("make_plan", [parallel.pmap_plan, lambda: parallel.mesh_plan(data=4, fsdp=2)])
def test_devices_see_the_global_batch(make_plan, shallow, global_gradients):
    """Eight devices with two pairs each give the loss and the gradients of one with sixteen."""
    plan = make_plan()
    assert plan.devices == 8
    batch = {"images": np.asarray(IMAGES), "ids": np.asarray(IDS), "mask": np.asarray(MASK)}
    step = plan.compile_step(make_gradients)
    state, metrics = step(plan.place_state(shallow), plan.place_batch(batch), jax.random.key(0))
    gradients, expected = plan.single(state), global_gradients[0]
    assert np.abs(expected["logit_scale"]) > 1e-3
    for (path, one), other in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=str(path))
    for name, value in global_gradients[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
