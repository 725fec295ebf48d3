"""DiT and MMDiT beside diffusers' DiTTransformer2DModel and SD3Transformer2DModel: the same output, and the same file
back."""

import jax
import numpy as np
import pytest

from flaxgen.nets.dit import Block
from flaxgen.weights import store
from flaxgen.weights.dit import ATTENTION, BLOCK, abstract_params, export_dit, import_dit
from flaxgen.weights.mmdit import export_mmdit, import_mmdit, mmdit_from_config
from flaxgen.weights.rules import to_params, under
from flaxgen.weights.unet2d import STEM

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

DIT = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 5}
SD3 = {
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "num_layers": 3,
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "joint_attention_dim": 12,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 10,
    "pos_embed_max_size": 9,
}
SD35 = {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}
CASES = {  # the class, its config, and height and width of what it draws
    "dit": (DIT | {"out_channels": 8}, (8, 8)),
    "dit_patch_4": (DIT | {"patch_size": 4, "sample_size": 16, "in_channels": 3, "norm_eps": 0.01}, (16, 16)),
    "dit_larger_than_trained": (DIT, (12, 12)),
    "sd3": (SD3, (8, 8)),
    "sd3_wide": (SD3, (6, 14)),
    "sd35": (SD3 | SD35, (8, 8)),
    "sd35_odd_crop": (SD3 | SD35 | {"dual_attention_layers": (2,), "pos_embed_max_size": 8}, (10, 6)),
}


def random_model(name):
    """Without a tensor at 0 or 1, so that no wrong rule can pass unseen; a DiT's blocks have one embedding."""
    torch.manual_seed(0)
    config = CASES[name][0]
    model = (diffusers.SD3Transformer2DModel if name.startswith("sd3") else diffusers.DiTTransformer2DModel)(**config)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(0.1 * torch.randn_like(tensor))
        if not name.startswith("sd3"):
            for block in model.transformer_blocks[1:]:
                block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
            # not kept in the file: the table is computed
            places = model.pos_embed
            fresh = diffusers.DiTTransformer2DModel(**config).pos_embed
            places.pos_embed.copy_(fresh.pos_embed)
    return model.eval()


def read(name, folder):
    return (import_mmdit if name.startswith("sd3") else import_dit)(folder)


def given(name):
    """The inputs of both nets: ours, and diffusers'."""
    config, size = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, config.get("in_channels", 4))).astype(np.float32)
    time = np.array([3.0, 871.0], np.float32)
    theirs = {"hidden_states": torch.from_numpy(x.transpose(0, 3, 1, 2)), "timestep": torch.from_numpy(time)}
    if name.startswith("dit"):
        ours = {"label": np.array([1, 5])}
        return {"x": x, "time": time} | ours, theirs | {"class_labels": torch.tensor([1, 5])}
    tokens, vector = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 12), (2, 10)))
    theirs |= {"encoder_hidden_states": torch.from_numpy(tokens), "pooled_projections": torch.from_numpy(vector)}
    return {"x": x, "time": time, "tokens": tokens, "vector": vector}, theirs


@pytest.mark.parametrize("name", CASES)
def test_the_same_output(name, tmp_path):
    model = random_model(name)
    model.save_pretrained(tmp_path)
    net, params = read(name, tmp_path)
    ours, theirs = given(name)
    with torch.no_grad():
        expected = model(**theirs).sample.numpy().transpose(0, 2, 3, 1)
    found = jax.jit(lambda params, inputs: net.apply({"params": params}, **inputs))(params, ours)
    assert expected.std() > 0.1
    assert np.abs(expected - np.asarray(found)).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["dit", "dit_patch_4", "sd3", "sd35"])
def test_what_is_exported_is_what_was_imported(name, tmp_path):
    """The file byte by byte, and the config in all that matters."""
    model = random_model(name)
    model.save_pretrained(tmp_path / "there")
    net, params = read(name, tmp_path / "there")
    (export_mmdit if name.startswith("sd3") else export_dit)(net, params, tmp_path / "back")
    there, back = (tmp_path / way / f"{STEM}.safetensors" for way in ("there", "back"))
    assert there.read_bytes() == back.read_bytes()
    old, new = (store.read_json(tmp_path / way / "config.json") for way in ("there", "back"))
    assert new.pop("out_channels") == (old.pop("out_channels") or old["in_channels"])
    assert new == {key: value for key, value in old.items() if key != "_diffusers_version"}
    type(model).from_pretrained(tmp_path / "back")


def test_blocks_with_embeddings_of_their_own_are_refused(tmp_path):
    """As after training in diffusers, where every block has its own."""
    model = random_model("dit")
    with torch.no_grad():
        model.transformer_blocks[2].norm1.emb.timestep_embedder.linear_1.bias.add_(1.0)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"transformer_blocks\.2\.norm1\.emb\.timestep_embedder\.linear_1\.bias"):
        import_dit(tmp_path)


PUBLISHED = {  # parameters of diffusers' nets, the buffer of places not among them
    "sd3_medium": (
        {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192},
        2_028_328_000,
    ),
    "sd35_medium": (
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
            "dual_attention_layers": list(range(13)),
        },
        2_243_171_520,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_as_many_parameters(name):
    config, count = PUBLISHED[name]
    with torch.device("meta"):
        model = diffusers.SD3Transformer2DModel(**config)
    assert sum(value.numel() for value in model.parameters()) == count
    shapes = abstract_params(mmdit_from_config(config))
    places = shapes["place_table"].size
    assert places == model.pos_embed.pos_embed.numel()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) - places == count


def test_a_block_reads_tokens_as_pixarts_does():
    """Its shifts, scales and gates are given from outside there, beside a table that is 0 here."""
    attention = pytest.importorskip("diffusers.models.attention")
    torch.manual_seed(0)
    theirs = attention.BasicTransformerBlock(
        32, 4, 8, cross_attention_dim=32, activation_fn="gelu-approximate", num_embeds_ada_norm=10, attention_bias=True,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
    ).eval()  # fmt: skip
    theirs.scale_shift_table.data.zero_()
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 6, 32), "tokens": (2, 5, 32), "emb": (2, 32), "kernel": (32, 6 * 32)}
    x, tokens, emb, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in shapes.values())
    mask, bias = np.array([[True] * 5, [True, True, True, False, False]]), np.zeros(6 * 32, np.float32)
    moves = torch.nn.functional.silu(torch.from_numpy(emb)) @ torch.from_numpy(kernel)
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(x), encoder_hidden_states=torch.from_numpy(tokens), timestep=moves,
            encoder_attention_mask=torch.from_numpy(np.where(mask, 0.0, -1e9)[:, None].astype(np.float32)),
        ).numpy()  # fmt: skip
    rules = (*BLOCK, *under([("attn2", "cross_attention")], ATTENTION))
    tensors = {name: value.numpy() for name, value in theirs.state_dict().items() if name != "scale_shift_table"}
    params = store.unflatten(dict(to_params(rules, tensors)))
    params["modulation"] = {"linear": {"kernel": kernel, "bias": bias}}
    found = jax.jit(Block(4).apply)({"params": params}, x, emb, tokens, mask)
    assert np.abs(expected - np.asarray(found)).max() <= 2e-5 * np.abs(expected).max()
