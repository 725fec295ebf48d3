"""CLIP beside transformers' CLIPModel and its towers: the same output, the same files back, the same tokens."""

import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import verbs
from flaxgen.data import unit_range
from flaxgen.data.tokenize import read_tokenizer, train_bpe
from flaxgen.family.extractor import fit_square
from flaxgen.interchange.clip_files import preprocess_of
from flaxgen.nets.clip import CLIP
from flaxgen.weights import store
from flaxgen.weights.clip import STEM, abstract_params, export_clip, export_towers, import_clip, import_towers
from flaxgen.weights.clip_config import clip_from_config, read_pixels

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
karlo_folder = pytest.importorskip("karlo_folder")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]

TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 9,
    "bos_token_id": 48,
    "eos_token_id": 49,
}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 12,
    "patch_size": 4,
}
VIT_L_14_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
VIT_L_14_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
CASES = {
    "tiny": ({}, {}, 24),
    "gelu": ({"hidden_act": "gelu", "layer_norm_eps": 1e-6}, {"hidden_act": "gelu", "layer_norm_eps": 1e-3}, 24),
    "gelu_tanh": ({"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "gelu_pytorch_tanh"}, 24),
    "other_shape": (
        {"max_position_embeddings": 5, "num_attention_heads": 1, "intermediate_size": 40},
        {"image_size": 18, "patch_size": 6, "num_hidden_layers": 1, "hidden_size": 40, "num_attention_heads": 5},
        7,
    ),
    "vit_l_14": (VIT_L_14_TEXT | {"num_hidden_layers": 2}, VIT_L_14_VISION | {"num_hidden_layers": 2}, 768),
}


def make_config(name):
    text, vision, dim = CASES[name]
    text, vision = ({**tower, "projection_dim": dim} for tower in (TEXT | text, VISION | vision))
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=dim)


def shake(model):
    """No tensor at 0 or 1, so that no wrong rule can pass unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value) / max(1, value.shape[-1] / 64 if value.ndim else 1) ** 0.5)
    return model.eval()


def make_inputs(config, batch=3):
    """Pictures in [-1, 1], and captions of several lengths: start, text, end and padding of end tokens."""
    rng = np.random.default_rng(0)
    size, text = config.vision_config.image_size, config.text_config
    images = rng.uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    length = text.max_position_embeddings
    ids = rng.integers(0, text.vocab_size - 2, (batch, length), np.int32)
    ends = np.array([length - 1, 1, length // 2])[:batch]
    mask = np.arange(length)[None] <= ends[:, None]
    ids = np.where(np.arange(length)[None] < ends[:, None], ids, text.eos_token_id).astype(np.int32)
    return images, ids, mask


def to_torch(images, ids):
    """Pictures brought to CLIP's mean and deviation by hand, channels in front; ids as torch has them."""
    mean, std = (getattr(transformers.image_utils, f"OPENAI_CLIP_{name}") for name in ("MEAN", "STD"))
    pixels = (((images + 1) / 2 - np.array(mean)) / np.array(std)).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))), torch.from_numpy(ids).long()


def theirs_of(model, images, ids):
    pixels, ids = to_torch(images, ids)
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels)


def apply(net, params, *inputs, method="__call__"):
    """A net's output, compiled as a whole, from numpy inputs."""
    return jax.jit(lambda p, *inputs: net.apply({"params": p}, *inputs, method=method))(params, *inputs)


def check_same_bytes(one, other):
    there, back = (store.read_file(folder / f"{STEM}.safetensors") for folder in (one, other))
    assert there.keys() == back.keys()
    for name, value in there.items():
        assert (value.dtype, value.shape, value.tobytes()) == (back[name].dtype, back[name].shape, back[name].tobytes())


@pytest.mark.parametrize("name", CASES)
def test_clip_computes_what_clipmodel_computes(name, tmp_path):
    config = make_config(name)
    model = shake(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path / "there")
    net, params = import_clip(tmp_path / "there")
    export_clip(net, params, tmp_path / "back", config.text_config.eos_token_id)
    check_same_bytes(tmp_path / "there", tmp_path / "back")

    images, ids, mask = make_inputs(config)
    image, text, scale = apply(net, params, images, ids, mask)
    encoding = apply(net, params, ids, mask, method="encode_text")
    theirs = theirs_of(model, images, ids)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (np.asarray(image), np.asarray(text))]
    np.testing.assert_allclose(unit[0], theirs.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(unit[1], theirs.text_embeds.numpy(), atol=1e-5)
    with torch.no_grad():
        pixels, tokens = to_torch(images, ids)
        raw_image = model.visual_projection(model.vision_model(pixels).pooler_output).numpy()
        raw_text = model.text_projection(model.text_model(tokens).pooler_output).numpy()
    assert min(raw_image.std(), raw_text.std()) > 0.1
    np.testing.assert_allclose(image, raw_image, atol=1e-4)
    np.testing.assert_allclose(text, raw_text, atol=1e-4)
    np.testing.assert_allclose(encoding.embedding, raw_text, atol=1e-4)
    np.testing.assert_allclose(encoding.hidden, theirs.text_model_output.last_hidden_state.numpy(), atol=1e-4)
    np.testing.assert_allclose(scale, np.exp(model.logit_scale.item()), rtol=1e-6)

    again = transformers.CLIPModel.from_pretrained(tmp_path / "back").eval()
    assert torch.equal(theirs_of(again, images, ids).logits_per_image, theirs.logits_per_image)


@pytest.mark.parametrize("name", ["tiny", "gelu", "other_shape"])
def test_towers_alone(name, tmp_path):
    """As unCLIP pipelines keep them: text_encoder/ and image_encoder/."""
    config = make_config(name)
    text = shake(transformers.CLIPTextModelWithProjection(config.text_config))
    vision = shake(transformers.CLIPVisionModelWithProjection(config.vision_config))
    text.save_pretrained(tmp_path / "text")
    vision.save_pretrained(tmp_path / "vision")
    net, params = import_towers(tmp_path / "text", tmp_path / "vision")
    eos = config.text_config.eos_token_id
    export_towers(net, params, tmp_path / "text_back", tmp_path / "vision_back", eos)
    for part in ("text", "vision"):
        check_same_bytes(tmp_path / part, tmp_path / f"{part}_back")
        transformers.AutoConfig.from_pretrained(tmp_path / f"{part}_back")

    images, ids, mask = make_inputs(config)
    image, embedding, _ = apply(net, params, images, ids, mask)
    pixels, tokens = to_torch(images, ids)
    with torch.no_grad():
        np.testing.assert_allclose(image, vision(pixels).image_embeds.numpy(), atol=1e-4)
        theirs = text(tokens)
    np.testing.assert_allclose(embedding, theirs.text_embeds.numpy(), atol=1e-4)

    alone, alone_params = import_clip(tmp_path / "text")
    assert alone.vision is None
    encoding = apply(alone, alone_params, ids, mask, method="encode_text")
    np.testing.assert_allclose(encoding.hidden, theirs.last_hidden_state.numpy(), atol=1e-4)


SHAPES = {  # laion's CLIP-ViT-H-14-laion2B-s32B-b79K and CLIP-ViT-bigG-14-laion2B-39B-b160k, as transformers has them
    "vit_h_14": ((1024, 4096, 24, 16), (1280, 5120, 32, 16), 1024),
    "vit_bigg_14": ((1280, 5120, 32, 20), (1664, 8192, 48, 16), 1280),
}


def openclip_config(name, width=1, depth=None):
    """The shapes of an OpenCLIP model, narrower by a factor, and of so many layers."""
    towers, dim = SHAPES[name][:2], SHAPES[name][2] // width
    parts = [
        {
            "hidden_act": "gelu",
            "hidden_size": size // width,
            "intermediate_size": inner // width,
            "num_hidden_layers": depth or layers,
            "num_attention_heads": heads,
            "projection_dim": dim,
        }
        for size, inner, layers, heads in towers
    ]
    text, vision = parts[0], {**parts[1], "patch_size": 14, "image_size": 224 if width == 1 else 28}
    text |= {"vocab_size": 49408 if width == 1 else 50, "max_position_embeddings": 77 if width == 1 else 9}
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=dim)


@pytest.mark.parametrize("name", SHAPES)
def test_openclip_in_transformers_layout(name, tmp_path):
    """Its width over mlp ratio is no whole number, and its gelu is exact; whole, it has as many parameters."""
    with torch.device("meta"):
        whole = transformers.CLIPModel(openclip_config(name))
    net = clip_from_config(whole.config.to_dict() | {"architectures": ["CLIPModel"]})
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(net))) == sum(
        x.numel() for x in whole.parameters()
    )

    config = openclip_config(name, width=8, depth=2)
    config.text_config.eos_token_id = 49
    model = shake(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path / "there")
    verbs.import_model(str(tmp_path / "there"), tmp_path / "model")
    images, ids, mask = make_inputs(config)
    loaded = verbs.load(tmp_path / "model")
    image, text, _ = apply(loaded.config.net, loaded.params, images, ids, mask)
    theirs = theirs_of(model, images, ids)
    for ours, wanted in ((image, theirs.image_embeds), (text, theirs.text_embeds)):
        unit = np.asarray(ours) / np.linalg.norm(ours, axis=-1, keepdims=True)
        np.testing.assert_allclose(unit, wanted.numpy(), atol=1e-5)
    verbs.export(tmp_path / "model", tmp_path / "back", layout="transformers")
    check_same_bytes(tmp_path / "there", tmp_path / "back")


@pytest.mark.parametrize("prefixed", [True, False])
def test_towers_without_projection(prefixed, tmp_path):
    """As Stable Diffusion keeps its text encoder; transformers 5 leaves the tower's name out of the tensors'."""
    config = make_config("gelu")
    models = {
        "text_model.": shake(transformers.CLIPTextModel(config.text_config)),
        "vision_model.": shake(transformers.CLIPVisionModel(config.vision_config)),
    }
    images, ids, mask = make_inputs(config)
    pixels, tokens = to_torch(images, ids)
    for prefix, model in models.items():
        there, directory, back = (tmp_path / f"{prefix}{name}" for name in ("there", "model", "back"))
        model.save_pretrained(there)
        path = there / f"{STEM}.safetensors"
        tensors = {name.removeprefix(prefix): value for name, value in store.read_file(path).items()}
        store.write_file(path, {prefix + name: value for name, value in tensors.items()} if prefixed else tensors)
        verbs.import_model(str(there), directory)
        loaded = verbs.load(directory)
        net = loaded.config.net
        if prefix == "text_model.":
            ours, inputs = apply(net, loaded.params, ids, mask, method="encode_text").embedding, tokens
        else:
            ours, inputs = apply(net, loaded.params, images, method="encode_image"), pixels
        verbs.export(directory, back, layout="transformers")
        for one in (model, type(model).from_pretrained(back).eval()):
            with torch.no_grad():
                np.testing.assert_allclose(ours, one(inputs).pooler_output.numpy(), atol=1e-4)


def test_a_processor_comes_with_its_model(tmp_path):
    """Tokens and pixels as transformers 5 saves them, together."""
    tokenizer = karlo_folder.make_tokenizer()
    config = make_config("tiny")
    config.text_config.vocab_size, config.text_config.eos_token_id = len(tokenizer), tokenizer.eos_token_id
    config.text_config.max_position_embeddings = karlo_folder.CONTEXT
    shake(transformers.CLIPModel(config)).save_pretrained(tmp_path / "there")
    pixels = transformers.CLIPImageProcessor(image_mean=[0.4, 0.5, 0.6], size=14, crop_size=12, resample=2)
    transformers.CLIPProcessor(pixels, tokenizer).save_pretrained(tmp_path / "there")
    verbs.import_model(str(tmp_path / "there"), tmp_path / "model")
    verbs.export(tmp_path / "model", tmp_path / "back", layout="transformers")
    captions = ["a red dog", "", "sq " * 20]
    ours = verbs.load(tmp_path / "model").tokenizer(captions)
    for folder in ("there", "back"):
        again = transformers.CLIPTokenizer.from_pretrained(tmp_path / folder, local_files_only=True)
        theirs = again(captions, padding="max_length", max_length=karlo_folder.CONTEXT, truncation=True)
        np.testing.assert_array_equal(ours.ids, theirs.input_ids)
    back = transformers.CLIPImageProcessor.from_pretrained(tmp_path / "back")
    for key in ("image_mean", "size", "crop_size", "resample"):
        assert getattr(back, key) == getattr(pixels, key)


GIVEN = [{}, {"size": 20}, {"resample": 2}, {"size": {"height": 12, "width": 12}}]


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("size", [(333, 1000), (64, 37), (11, 9), (12, 12)], ids=str)
def test_pictures_of_another_shape(size, given, tmp_path):
    """Within what CLIPImageProcessor loses by rounding to 8 bits after rows and after columns."""
    processor = transformers.CLIPImageProcessor(**{"size": 12, "crop_size": 12, "do_normalize": False, **given})
    processor.save_pretrained(tmp_path)
    image = smooth(size)
    how = preprocess_of(read_pixels(tmp_path, 12))
    ours = np.asarray(fit_square(unit_range(jnp.asarray(image[None])), 12, how)[0]) / 2 + 0.5
    theirs = np.asarray(processor(image, return_tensors="np").pixel_values[0]).transpose(1, 2, 0)
    np.testing.assert_allclose(ours, theirs, atol=1.51 / 255)


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_the_embedding_of_an_oblong_picture(given, vision_folder, tmp_path):
    """From a folder with its preprocessing to the embedding: of a tall and of a wide one."""
    folder, vision = vision_folder
    shutil.copytree(folder, tmp_path / "there")
    processor = transformers.CLIPImageProcessor(**{"size": 12, "crop_size": 12, **given})
    processor.save_pretrained(tmp_path / "there")
    verbs.import_model(str(tmp_path / "there"), tmp_path / "model")
    model = verbs.load(tmp_path / "model")
    for image in (smooth((333, 1000)), smooth((1000, 333))):
        ours = model.encode_image(image[None])[0]
        with torch.no_grad():
            theirs = vision(processor(image, return_tensors="pt").pixel_values).image_embeds[0].numpy()
        assert 1 - ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) < 5e-5


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory):
    """A vision tower of 12 px, on disk and as transformers has it."""
    folder = tmp_path_factory.mktemp("vision")
    vision = shake(transformers.CLIPVisionModelWithProjection(make_config("tiny").vision_config))
    vision.save_pretrained(folder)
    return folder, vision


def smooth(size):
    """A picture whose parts differ, so that it matters what is cut out of it."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / size[1] * 9 + i) * np.cos(y / size[0] * (3 + i)) for i in range(3)]
    return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def test_vit_l_14_has_as_many_parameters():
    """The defaults of `CLIP` are ViT-L/14's."""
    with torch.device("meta"):
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=VIT_L_14_TEXT, vision_config=VIT_L_14_VISION, projection_dim=768)
        )
    theirs = sum(value.numel() for value in model.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(CLIP()))) == theirs


def test_legacy_end_of_caption(tmp_path):
    """OpenAI's own folders say eos_token_id=2, and transformers takes the largest id for the end."""
    config = make_config("tiny")
    config.text_config.eos_token_id = 2
    model = shake(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path)
    net, params = import_clip(tmp_path)
    config.text_config.eos_token_id = 49
    images, ids, mask = make_inputs(config)
    ids = np.where(mask, ids, 0)
    _, text, _ = apply(net, params, images, ids, mask)
    text = np.asarray(text) / np.linalg.norm(text, axis=-1, keepdims=True)
    np.testing.assert_allclose(text, theirs_of(model, images, ids).text_embeds.numpy(), atol=1e-5)


def test_ours_exported_is_read_at_our_end(tmp_path):
    """A CLIP over a tokenizer trained here: transformers finds the same end of a caption."""
    tokenizer = train_bpe(["a red circle", "a green square left of a blue one"], 300, 9)
    config = make_config("tiny")
    config.text_config.vocab_size = 300
    shake(transformers.CLIPModel(config)).save_pretrained(tmp_path / "there")
    net, params = import_clip(tmp_path / "there")
    export_clip(net, params, tmp_path / "back", tokenizer.end_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.CLIPModel.from_pretrained(tmp_path / "back").eval()
    images, _, _ = make_inputs(config, batch=2)
    ids, mask = tokenizer(["a red circle", ""])
    _, text, _ = apply(net, params, images, ids, mask)
    text = np.asarray(text) / np.linalg.norm(text, axis=-1, keepdims=True)
    np.testing.assert_allclose(text, theirs_of(model, images, ids).text_embeds.numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory):
    """vocab.json and merges.txt in CLIP's format, of a handful of merges."""
    folder = tmp_path_factory.mktemp("clip_files")
    letters = sorted(set(train_bpe(["x"], 259, 4)._codec.get_vocab()) - {"<pad>", "<start>", "<end>"})
    merges = [("r", "e"), ("re", "d</w>"), ("o", "g</w>"), ("b", "l"), ("bl", "u"), ("blu", "e</w>"), ("1", "2</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocab = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return folder


CAPTIONS = [
    "a red dog",
    "",
    "  A  Red\tDOG's blue 12 hats!!",
    "café déjà vu, 日本の絵 🎨",
    "x" * 200,
    "blue\nre-do it's",
]


@pytest.mark.parametrize("saved", [False, True])
def test_clip_tokens(saved, clip_files, tmp_path):
    """From vocab.json and merges.txt, and from the tokenizer.json that transformers makes of them."""
    reference = transformers.CLIPTokenizer.from_pretrained(clip_files, local_files_only=True)
    if saved:
        reference.save_pretrained(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = read_tokenizer(tmp_path if saved else clip_files, 16)
    theirs = reference(CAPTIONS, padding="max_length", max_length=16, truncation=True)
    ids, mask = tokenizer(CAPTIONS)
    np.testing.assert_array_equal(ids, theirs.input_ids)
    np.testing.assert_array_equal(mask, np.array(theirs.attention_mask, bool))
    assert read_tokenizer(clip_files, 16, pad_id=0)(["a red dog"]).ids[0, -1] == 0
