"""CLIP score of pictures and captions beside transformers' CLIP, from its own files, through the whole evaluation."""

import numpy as np
import pytest
from saving import write_model

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.data.tokenize import train_bpe
from flaxgen.family.evaluation import Evaluation
from flaxgen.measure.evaluate import evaluate
from flaxgen.measure.features import make_extractor
from flaxgen.measure.picture_sets import of_draw
from flaxgen.weights.clip import import_clip
from flaxgen.zoo import clip

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
CAPTIONS = [f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("ball", "cube", "cone", "ring")]
SIZE, CONTEXT = 12, 9


@pytest.fixture(scope="module")
def theirs():
    """Random weights, none of them at 0 or 1, that see the end of a caption where our tokenizer puts it."""
    tokenizer = train_bpe(CAPTIONS, 290, CONTEXT)
    tower = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    ids = np.asarray(tokenizer(["a"]).ids)[0]
    mask = np.asarray(tokenizer(["a"]).mask)[0]
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 300, "max_position_embeddings": CONTEXT,
                     "eos_token_id": int(ids[mask][-1]), "bos_token_id": int(ids[0]), "projection_dim": 24},
        vision_config={**tower, "image_size": SIZE, "patch_size": 4, "projection_dim": 24},
        projection_dim=24,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn_like(value) / max(1, value.shape[-1] / 64 if value.ndim else 1) ** 0.5)
    return model, tokenizer


def their_score(model, tokenizer, images) -> float:
    """100 max(cos, 0), as torchmetrics has it, on their embeddings of the same pixels and tokens."""
    mean, std = (np.array(getattr(transformers.image_utils, f"OPENAI_CLIP_{name}")) for name in ("MEAN", "STD"))
    pixels = ((images / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    ids = torch.from_numpy(np.asarray(tokenizer(CAPTIONS).ids)).long()
    with torch.no_grad():
        found = model(input_ids=ids, pixel_values=torch.from_numpy(np.ascontiguousarray(pixels)))
    cosines = (found.image_embeds * found.text_embeds).sum(-1)
    assert cosines.std() > 0.01, "pairs that are all alike show nothing"
    return float(100 * cosines.clamp(min=0).mean())


@pytest.mark.parametrize("name", ["jit", "mesh"])
def test_clip_score_is_theirs(theirs, name, tmp_path):
    model, tokenizer = theirs
    model.save_pretrained(tmp_path / "theirs")
    net, params = import_clip(tmp_path / "theirs")
    config = clip.Config(seed=0, steps=1, batch_size=4, data=Data("folder"), net=net)
    write_model(tmp_path / "ours", config, params, 1, {clip.TOKENIZER: tokenizer.to_json().encode()})
    images = np.random.default_rng(0).integers(0, 256, (len(CAPTIONS), SIZE, SIZE, 3), dtype=np.uint8)

    def draw(numbers):
        index = np.asarray(numbers) % len(images)
        return {"image": images[index], "text": np.array(CAPTIONS, object)[index]}

    settings = Evaluation(("clip_score",), num=len(images), seed=0, batch=8)
    extractor = make_extractor(f"clip:{tmp_path / 'ours'}")
    found = evaluate(None, of_draw(draw, {}), extractor, settings, parallel.make_plan(name))
    expected = their_score(model, tokenizer, images)
    assert 1 < expected < 99
    assert found["clip_score"] == pytest.approx(expected, rel=1e-4)
