"""DiffusionPrior beside diffusers' PriorTransformer: the same output, the same file back, as many parameters."""

import json

import jax
import numpy as np
import pytest

from flaxgen.nets.prior import DiffusionPrior
from flaxgen.weights import store
from flaxgen.weights.prior import STEM, abstract_params, export_prior, import_prior

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

CASES = {
    "tiny": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 12},
    "one_head_odd_sizes": {
        "num_attention_heads": 1,
        "attention_head_dim": 14,
        "num_layers": 3,
        "embedding_dim": 5,
        "num_embeddings": 11,
    },
    "sizes_spelled_out": {
        "num_attention_heads": 4,
        "attention_head_dim": 6,
        "num_layers": 1,
        "embedding_dim": 16,
        "num_embeddings": 3,
        "time_embed_dim": 24,
        "embedding_proj_dim": 16,
        "clip_embed_dim": 16,
    },
    "karlo_two_layers": {"num_layers": 2},
    "kandinsky_2_2_one_layer": {"num_layers": 1, "embedding_dim": 1280},  # it reads ViT-bigG/14,
}


def random_model(config):
    """A PriorTransformer without a tensor at 0 or 1, so that no wrong rule can pass unseen."""
    torch.manual_seed(0)
    model = diffusers.PriorTransformer(**config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.5 / max(value.shape[-1], 25) ** 0.5)
    return model


def inputs(config, lengths):
    rng, batch, width, context = np.random.default_rng(0), len(lengths), config.embedding_dim, config.num_embeddings
    return {
        "x": rng.standard_normal((batch, width)).astype(np.float32),
        "time": np.array([0.0, 417.0, 999.0], np.float32)[:batch],
        "text_embedding": rng.standard_normal((batch, width)).astype(np.float32),
        "text_hidden": rng.standard_normal((batch, context, width)).astype(np.float32),
        "text_mask": np.arange(context)[None] < np.array(lengths)[:, None],
    }


def predict(model, given):
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    with torch.no_grad():
        return model(
            tensors["x"], tensors["time"], tensors["text_embedding"], tensors["text_hidden"], tensors["text_mask"]
        ).predicted_image_embedding.numpy()


@pytest.fixture(scope="module", params=CASES)
def both(request, tmp_path_factory):
    """A PriorTransformer, its folder, and what was imported from it and exported again."""
    model, folder = random_model(CASES[request.param]), tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder / "there")
    net, params = import_prior(folder / "there")
    export_prior(net, params, folder / "back")
    return model, net, params, folder


def test_every_byte_and_the_config_come_back(both):
    _, _, _, folder = both
    there, back = (store.read_file(folder / way / f"{STEM}.safetensors") for way in ("there", "back"))
    assert there.keys() == back.keys()
    for name, value in there.items():
        assert (value.dtype, value.shape, value.tobytes()) == (back[name].dtype, back[name].shape, back[name].tobytes())
    configs = [json.loads((folder / way / "config.json").read_text()) for way in ("there", "back")]
    there, back = ({k: v for k, v in config.items() if not k.startswith("_")} for config in configs)
    for spelled_out in ("time_embed_dim", "embedding_proj_dim", "clip_embed_dim"):
        there[spelled_out] = None
    assert there == back


@pytest.mark.parametrize("padded", [False, True])
def test_prior_computes_what_prior_transformer_computes(padded, both):
    model, net, params, folder = both
    context = model.config.num_embeddings
    given = inputs(model.config, (context, max(context // 3, 1), 1) if padded else (context,) * 3)
    theirs = predict(model, given)
    again = diffusers.PriorTransformer.from_pretrained(folder / "back", low_cpu_mem_usage=False).eval()
    np.testing.assert_array_equal(predict(again, given), theirs)
    ours = jax.jit(lambda p, given: net.apply({"params": p}, **given))(params["net"], given)
    assert theirs.std() > 0.1
    assert np.abs(theirs - ours).max() <= 1e-4


def test_whitening_comes_along(both):
    model, _, params, _ = both
    whitened = np.random.default_rng(1).standard_normal((2, model.config.embedding_dim)).astype(np.float32)
    theirs = model.post_process_latents(torch.from_numpy(whitened)).detach().numpy()
    statistics = params["statistics"]
    np.testing.assert_allclose(whitened * statistics["std"][None] + statistics["mean"][None], theirs, atol=1e-6)


@pytest.mark.parametrize("embedding_dim", [768, 1280], ids=["karlo", "kandinsky_2_2"])
def test_the_published_sizes_have_as_many_parameters(embedding_dim):
    with torch.device("meta"):
        model = diffusers.PriorTransformer(embedding_dim=embedding_dim)
    net = DiffusionPrior(embedding_dim=embedding_dim, text_dim=embedding_dim)
    ours = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(net)))
    assert ours == sum(value.numel() for value in model.parameters())
