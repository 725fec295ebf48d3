"""What the decoder promises beside its numbers, which tests/parity compares with Karlo's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.attention import ATTENTIONS, SelfAttention, TokenAttention
from flaxgen.nets.clip import TextTower
from flaxgen.nets.decoder import Decoder, split_tokens
from flaxgen.nets.unet import UNet
from flaxgen.train.config import decode, encode

SIZE, BATCH, LENGTH = 16, 2, 5
ATTENTION = TokenAttention(head_channels=8)
UNET = UNet(
    image_size=SIZE,
    channels=8,
    multipliers=(1, 2),
    depth=1,
    attention=(None, ATTENTION),
    middle="none",
    norm_groups=4,
    patch=2,
    added=True,
    token_dim=12,
    learned_variance=True,
    scale_shift=True,
    resample="resnet",
)
NET = Decoder(unet=UNET, embedding_dim=6, text_dim=7, image_tokens=3, null_text=True)
SMALL = NET.clone(unet=UNET.clone(multipliers=(1,), attention=(ATTENTION,)))
TOWER = TextTower(vocab_size=11, context=LENGTH, width=8, depth=1, heads=2)
YES, NO = jnp.ones(BATCH, bool), jnp.zeros(BATCH, bool)


def caption():
    """x, time, image embedding, text embedding, hidden states and their mask: the second caption is shorter."""
    keys = jax.random.split(jax.random.key(1), 4)
    return (
        jax.random.normal(keys[0], (BATCH, SIZE, SIZE, 3)),
        jnp.array([3.0, 871.0]),
        jax.random.normal(keys[1], (BATCH, 6)),
        jax.random.normal(keys[2], (BATCH, 6)),
        jax.random.normal(keys[3], (BATCH, LENGTH, 7)),
        jnp.arange(LENGTH)[None] < jnp.array([[LENGTH], [2]]),
    )


@pytest.fixture(scope="module")
def params(shaken):
    return shaken(NET, *caption())


def differ(one, other):
    return np.abs(np.asarray(one) - np.asarray(other)).max(axis=(1, 2, 3)) > 1e-4


def test_shape_with_patches_tokens_and_learned_variance(params, run):
    out = run(NET, params, *caption(), YES, YES)
    assert (out.shape, out.dtype) == ((BATCH, SIZE, SIZE, 6), jnp.float32)
    assert set(params) >= {"null_image", "null_text", "null_text_hidden"}
    assert params["unet"]["down_1_attention_0"]["token_key"]["kernel"].shape == (12, 16)


def test_every_condition_matters_and_only_to_its_example(params, run):
    given = caption()
    before = run(NET, params, *given, YES, YES)
    for place in range(1, 5):
        changed = list(given)
        changed[place] = (
            changed[place].at[0].add(1.0 + jnp.arange(changed[place][0].size).reshape(changed[place][0].shape))
        )
        assert list(differ(before, run(NET, params, *changed, YES, YES))) == [True, False], place


def test_masked_tokens_have_no_influence(params, run):
    *given, hidden, mask = caption()
    before = run(NET, params, *given, hidden, mask, YES, YES)
    changed = jnp.where(mask[..., None], hidden, 9.0 * hidden + 1.0)
    np.testing.assert_array_equal(run(NET, params, *given, changed, mask, YES, YES), before)
    assert differ(before, run(NET, params, *given, changed, jnp.ones_like(mask), YES, YES))[1]


def test_without_an_image_the_null_stands_for_it(params, run):
    """In the time embedding and in the tokens: as if the null were the embedding."""
    x, time, image, *text = caption()
    null = jnp.broadcast_to(params["null_image"], image.shape)
    expected = run(NET, params, x, time, null, *text, YES, YES)
    np.testing.assert_allclose(run(NET, params, x, time, image, *text, NO, YES), expected, atol=1e-6)
    mixed = run(NET, params, x, time, image, *text, jnp.array([True, False]), YES)
    np.testing.assert_allclose(mixed[1], expected[1], atol=1e-6)
    assert differ(mixed, expected)[0]


def test_without_a_caption_there_is_one_null_token(params, run):
    """What the caption said, and how long it was, no longer matters."""
    x, time, image, text, hidden, mask = caption()
    null_text, null_hidden = (
        jnp.broadcast_to(params[f"null_{key}"], (BATCH, n)) for key, n in (("text", 6), ("text_hidden", 7))
    )
    one_token = jnp.zeros_like(mask).at[:, 0].set(True)
    null_hiddens = jnp.broadcast_to(null_hidden[:, None], hidden.shape)
    expected = run(NET, params, x, time, image, null_text, null_hiddens, one_token, YES, YES)
    np.testing.assert_allclose(run(NET, params, x, time, image, text, hidden, mask, YES, NO), expected, atol=1e-6)
    np.testing.assert_allclose(run(NET, params, x, time, image, -text, 2 * hidden, ~mask, YES, NO), expected, atol=1e-6)


def test_gradients_reach_the_nulls_where_they_are_used(shaken):
    params = shaken(SMALL, *caption())

    @jax.jit
    def gradient(has_image, has_text):
        def loss(p):
            return jnp.square(SMALL.apply({"params": p}, *caption(), has_image, has_text)).sum()

        grads = jax.grad(loss)(params)
        return {key: jnp.abs(grads[key]).max() for key in ("null_image", "null_text", "null_text_hidden")}

    assert {key: float(value) for key, value in gradient(YES, YES).items()} == dict.fromkeys(
        ("null_image", "null_text", "null_text_hidden"), 0.0
    )
    assert min(map(float, gradient(jnp.array([True, False]), jnp.array([False, True])).values())) > 1e-3


def test_channels_of_the_image_tokens_come_first():
    """The other order, token by token, is the mistake that ports of Karlo make."""
    tokens = split_tokens(jnp.arange(12.0).reshape(1, 12), 3)
    np.testing.assert_array_equal(tokens[0], [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])


def test_a_text_tower_is_trained_with_the_decoder(shaken):
    net = SMALL.clone(text=TOWER, text_dim=8)
    *given, hidden, mask = caption()
    ids = jnp.arange(BATCH * LENGTH).reshape(BATCH, LENGTH)
    params = shaken(net, *given, None, mask, text_ids=ids)

    @jax.jit
    def gradient(p, ids):
        def loss(p):
            return jnp.square(net.apply({"params": p}, *given, None, mask, YES, YES, ids)).sum()

        return jax.value_and_grad(loss)(p)

    (value, grads), (other, _) = gradient(params, ids), gradient(params, ids.at[0, -1].set(9))
    assert min(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads["text"]["transformer"])) > 0
    assert abs(value - other) > 1e-4 * value
    unread = {**params, "text_tokens": jax.tree.map(jnp.zeros_like, params["text_tokens"])}
    changed = gradient(unread, ids.at[0, -1].set(9))[0] - gradient(unread, ids)[0]
    assert abs(changed) > 1e-4 * value, "the last token joins the time embedding"
    with pytest.raises(ValueError, match="has a text tower: it takes the caption as 'text_ids'"):
        net.apply({"params": params}, *given, hidden, mask, text_ids=ids)
    with pytest.raises(ValueError, match="has no text tower: it takes the caption as 'text_hidden'"):
        NET.apply({"params": params}, *given, hidden, mask, text_ids=ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": UNET.clone(added=False)}, "added=False and token_dim=12"),
        ({"unet": UNET.clone(token_dim=0)}, "added=True and token_dim=0"),
        ({"unet": UNET.clone(attention=(), middle=SelfAttention())}, "reads its tokens nowhere"),
        ({"unet": UNET.clone(dtype="half")}, "dtype='half'"),
        ({"embedding_dim": 5}, "'image_embedding' is 6 wide, embedding_dim=5"),
        ({"text_dim": 6}, "'text_hidden' is 7 wide, text_dim=6"),
        ({"null_text": False}, "null_text=False has no null for 'has_text'"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    net = NET.clone(**changes)
    with pytest.raises(ValueError, match=message) as caught:
        jax.eval_shape(lambda: net.init(jax.random.key(0), *caption(), YES, YES))
    assert "\n" not in str(caught.value)


def test_a_decoder_is_data():
    """It goes through JSON as a config does, with the net and the tower inside."""
    known = {kind.__name__: kind for kind in (Decoder, UNet, *ATTENTIONS, TextTower)}
    for net in (NET, NET.clone(text=TOWER)):
        assert decode(json.loads(json.dumps(encode(net, known))), known) == net


@pytest.mark.slow
def test_dalle2_has_as_many_parameters_as_published():
    """3.5B, the text transformer's included [Ramesh22, table 3]."""
    value = TokenAttention(head_channels=64)
    unet = UNET.clone(
        image_size=64, channels=512, multipliers=(1, 2, 3, 4), depth=3, attention=(None, value, value, value), patch=1,
        token_dim=2048, norm_groups=32, middle=value,
    )  # fmt: skip
    text = TextTower(vocab_size=50_257, context=256, width=2048, depth=24, heads=32)
    net = Decoder(unet=unet, embedding_dim=1024, text_dim=2048, null_text=True, text=text)
    x, embedding, one = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 1024)), jnp.ones((1, 1), bool)
    given = (x, jnp.ones(1), embedding, embedding, None, one)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *given, text_ids=jnp.zeros((1, 1), int)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == pytest.approx(3.5e9, rel=0.15)
