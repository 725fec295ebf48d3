"""dalle-mini beside a BART of torch: transformers' BartAttention between torch's norms and linear layers, filled from
the file that is exported, by the names in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_weights
from flax import serialization

from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.weights.dalle_mini import FILE, abstract_params, export_dalle_mini

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
NET = DalleMini(text_tokens=11, context=5, codes=7, length=6, begin=7, width=16, depth=2, heads=4, inner=10)


def tensor(value):
    return torch.from_numpy(np.array(value))


def norm(x, layer):
    scale = tensor(layer["scale"]) if "scale" in layer else None
    return torch.nn.functional.layer_norm(x, x.shape[-1:], scale, tensor(layer["bias"]), 1e-5)


def attention(layer):
    from transformers.models.bart.modeling_bart import BartAttention

    config = transformers.BartConfig(attn_implementation="eager")
    module = BartAttention(NET.width, NET.heads, bias=False, config=config).eval()
    module.load_state_dict({f"{name}.weight": tensor(layer[name]["kernel"]).T for name in layer})
    return module


def layer_at(layers, i):
    return jax.tree.map(lambda stacked: stacked[i], layers)


def forward(part, tokens, allowed, text=None, readable=None):
    """The encoder, or the decoder of a text; masks are additive."""
    x = tensor(part["embed_tokens"]["embedding"])[tokens]
    x = x + tensor(part["embed_positions"]["embedding"])[None, : tokens.shape[1]]
    x = norm(x, part["layernorm_embedding"])
    (stacked,) = part["layers"].values()
    for i in range(NET.depth):
        layer = layer_at(stacked, i)
        attended = attention(layer["FlaxBartAttention_0"])(norm(x, layer["LayerNorm_0"]), attention_mask=allowed)[0]
        x = x + norm(attended, layer["LayerNorm_1"])
        if text is not None:
            attend = attention(layer["FlaxBartAttention_1"])
            read = attend(norm(x, layer["LayerNorm_2"]), key_value_states=text, attention_mask=readable)[0]
            x = x + norm(read, layer["LayerNorm_3"])
        glu = layer["GLU_0"]
        h = norm(x, glu["LayerNorm_0"])
        gate, value = (h @ tensor(glu[name]["kernel"]) for name in ("Dense_0", "Dense_1"))
        x = x + norm(torch.nn.functional.gelu(gate) * value, glu["LayerNorm_1"]) @ tensor(glu["Dense_2"]["kernel"])
    return norm(x, part["final_ln"])


def test_the_exported_file_gives_the_same_logits_in_torch(tmp_path):
    params = random_weights.draw_like(abstract_params(NET))
    export_dalle_mini(NET, params, tmp_path)
    text = jax.random.randint(jax.random.key(0), (3, 5), 0, 11)
    codes = jax.random.randint(jax.random.key(1), (3, 6), 0, 7)
    mask = jnp.arange(5)[None] < jnp.array([5, 3, 1])[:, None]
    logits = jax.jit(lambda p: NET.apply({"params": p}, text, mask, codes))(params)

    tree = serialization.msgpack_restore((tmp_path / FILE).read_bytes())
    lowest = torch.finfo(torch.float32).min
    readable = torch.where(tensor(mask), 0.0, lowest)[:, None, None]
    causal = torch.full((6, 6), lowest).triu(1)[None, None].expand(3, 1, 6, 6)
    before = torch.cat((torch.full((3, 1), 7), tensor(codes)[:, :-1]), 1).long()
    with torch.no_grad():
        encoded = forward(tree["model"]["encoder"], tensor(text).long(), readable.expand(3, 1, 5, 5))
        h = forward(tree["model"]["decoder"], before, causal, encoded, readable.expand(3, 1, 6, 5))
        theirs = (h @ tensor(tree["lm_head"]["kernel"])).numpy()
    assert theirs.std() > 0.1
    assert np.abs(theirs - np.asarray(logits)).max() <= 1e-5 * max(1, np.abs(theirs).max())
