"""Every net over grids, trained for a short while on digits, tells more of new ones than pixels alone would."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen.data.digits import Digits
from flaxgen.nets.code_transformer import CodeTransformer
from flaxgen.nets.pixelcnn import PixelCNN
from flaxgen.nets.pixelcnn_plus import PixelCNNPlus
from flaxgen.nets.pixelsnail import PixelSNAIL
from flaxgen.tokens.logistic import log_prob, read_mixture

pytest.importorskip("sklearn.datasets")
pytestmark = pytest.mark.slow

LEVELS, STEPS = 17, 100
GRID = {"height": 8, "width": 8, "codes": LEVELS, "num_classes": 10}
NETS = {
    "gated": PixelCNN(**GRID, channels=32, depth=5, first_size=5, out_channels=64),
    "plus": PixelCNNPlus(**GRID, pixel_channels=1, logistics=5, channels=24, depth=2, resolutions=2, dropout=0.1),
    "snail": PixelSNAIL(**GRID, channels=32, blocks=2, depth=2, key_channels=8, value_channels=16, dropout=0.1),
    "transformer": CodeTransformer(**GRID, features=64, depth=3, heads=4),
}


@pytest.fixture(scope="module")
def digits():
    """Levels 0 .. 16 [N 8 8] and labels, of the train and of the test split."""
    splits = []
    for split in ("train", "test"):
        source = Digits(split)
        examples = [source[i] for i in range(len(source))]
        images = np.stack([example["image"][..., 0] for example in examples])
        splits.append((np.round(images * (16 / 255)).astype(np.int32), np.stack([e["label"] for e in examples])))
    return splits


def bits_alone(train, test):
    """Bits a pixel of the test pictures where every pixel is drawn by its own frequencies in training."""
    counts = 1 + np.stack([(train == level).sum(0) for level in range(LEVELS)])
    probabilities = counts / counts.sum(0)
    return -np.log2(np.take_along_axis(probabilities, test.reshape(-1, 8, 8), axis=0)).mean()


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_neighbours_tell_more_than_a_pixels_own_frequencies(net, digits):
    (train, train_labels), (test, test_labels) = digits

    def bits(params, codes, labels, **training):
        if isinstance(net, PixelCNNPlus):
            codes = codes[..., None]
            out = net.apply({"params": params}, codes, labels, **training)
            return -log_prob(read_mixture(out, 1), codes, LEVELS).mean() / math.log(2)
        logits = net.apply({"params": params}, codes, labels, **training)
        return optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean() / math.log(2)

    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_cosine_decay_schedule(0, 2e-3, 20, STEPS)))

    @jax.jit
    def step(params, opt_state, key):
        place_key, dropout_key = jax.random.split(key)
        places = jax.random.randint(place_key, (64,), 0, len(train))
        batch = jnp.asarray(train)[places], jnp.asarray(train_labels)[places]
        gradient = jax.grad(bits)(params, *batch, train=True, rngs={"dropout": dropout_key})
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    example = jnp.zeros((1, 8, 8, 1) if isinstance(net, PixelCNNPlus) else (1, 8, 8), int)
    params = jax.jit(net.init)(jax.random.key(0), example, jnp.zeros(1, int))["params"]
    opt_state = tx.init(params)
    for i in range(STEPS):
        params, opt_state = step(params, opt_state, jax.random.fold_in(jax.random.key(1), i))
    found = float(jax.jit(bits)(params, test, test_labels))
    print(f"{found:.2f} bits a pixel; pixels alone {bits_alone(train, test):.2f}")
    assert found < bits_alone(train, test) - 0.05
