"""The config.json of transformers' CLIP models <-> the fields of `CLIP` and its towers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen.nets.clip import CLIP, MEAN, STD, TextTower, VisionTower
from flaxgen.weights import store
from flaxgen.weights.fields import COUNT, FLAG, NUMBER, POSITIVE, Field, Kind, Table, choice, only, optional, several

KINDS = {
    "clip": "CLIPModel",
    "clip_text_model": "CLIPTextModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
}
"""`model_type` and the class that has the projection too."""
BARE = {"clip_text_model": "CLIPTextModel", "clip_vision_model": "CLIPVisionModel"}
"""Those of one tower without a projection."""
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_new"}
PARTS = ("text_config", "vision_config", "text_config_dict", "vision_config_dict")
IGNORED = frozenset(
    """
    add_cross_attention architectures bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dropout dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id id2label initializer_factor initializer_range is_decoder is_encoder_decoder label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k
    top_p torch_dtype torchscript transformers_version typical_p use_bfloat16 use_return_dict
    """.split()  # noqa: SIM905
)
"""Keys that transformers writes into every config; none changes what a CLIP computes."""
PRUNED = Field("pruned_heads", {}, only({}, None), written=False)


def _tower(hidden_size: int, intermediate_size: int, heads: int) -> tuple[Field, ...]:
    """What the two towers share, with transformers' defaults."""
    return (
        Field("hidden_act", "quick_gelu", choice(ACTIVATIONS), "activation"),
        Field("layer_norm_eps", 1e-5, NUMBER, "norm_eps"),
        Field("attention_dropout", 0.0, only(0.0)),
        Field("hidden_size", hidden_size, COUNT, "width"),
        Field("intermediate_size", intermediate_size, COUNT, "mlp_width"),
        Field("projection_dim", 512, COUNT, "embedding_dim"),
        Field("num_hidden_layers", 12, COUNT, "depth"),
        Field("num_attention_heads", heads, COUNT, "heads"),
        PRUNED,
    )


TEXT = Table(
    "CLIP",
    (
        *_tower(512, 2048, 8),
        Field("vocab_size", 49408, COUNT, "vocab_size"),
        Field("max_position_embeddings", 77, COUNT, "context"),
    ),
    IGNORED,
    class_key="",
)
VISION = Table(
    "CLIP",
    (
        *_tower(768, 3072, 12),
        Field("image_size", 224, COUNT, "image_size"),
        Field("patch_size", 32, COUNT, "patch"),
        Field("num_channels", 3, only(3)),
    ),
    IGNORED,
    class_key="",
)
BOTH = Table(
    "CLIP",
    (
        Field("projection_dim", 512, COUNT, "embedding_dim"),
        Field("logit_scale_init_value", 2.6592, NUMBER, "logit_scale_init"),
        PRUNED,
    ),
    IGNORED | set(PARTS),
    class_key="",
)
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
BYTES = Kind("1/255", lambda value: NUMBER.accepts(value) and abs(value * 255 - 1) < 1e-6)


class Pixels(NamedTuple):
    """How pictures are read: both sides (`squash`) or the shorter one become `short_side` pixels (0: the tower's size)
    by one of Pillow's filters, the middle square is cut out, and pixels in [0, 1] are brought to mean 0 and deviation 1
    by `mean` and `std`."""

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    short_side: int = 0
    squash: bool = False
    filter: str = "bicubic"


def _side(value: Any) -> tuple[int, bool] | None:
    """A size in pixels, and whether it is that of both sides; None for what is none. A number is an old version's."""
    sides = value if isinstance(value, dict) else {"shortest_edge": value}
    both = sides.keys() == {"height", "width"}
    if not both and sides.keys() != {"shortest_edge"}:
        return None
    size, *other = sides.values()
    return (size, both) if COUNT.accepts(size) and all(one == size for one in other) else None


def _written(side: tuple[int, bool]) -> dict[str, int]:
    return dict.fromkeys(("height", "width") if side[1] else ("shortest_edge",), side[0])


SIDE = Kind(
    "pixels as a number, as shortest_edge, or as height and width that are equal",
    lambda value: _side(value) is not None,
    _side,
    _written,
)
FILTERS = {3: "bicubic", 2: "bilinear", 1: "lanczos"}
"""Pillow's numbers of its filters."""
PIXELS = Table(
    "CLIPImageProcessor",
    (
        Field("do_resize", True, only(True)),
        Field("size", None, optional(SIDE), "size"),
        Field("resample", 3, choice(FILTERS), "filter"),
        Field("do_center_crop", True, FLAG, "cropped"),
        Field("crop_size", None, optional(SIDE), "crop"),
        Field("do_rescale", True, only(True)),
        Field("rescale_factor", 1 / 255, BYTES),
        Field("do_normalize", True, FLAG, "normalised"),
        Field("image_mean", MEAN, several(NUMBER, 3), "mean"),
        Field("image_std", STD, several(POSITIVE, 3), "std"),
    ),
    class_key="",
    open=True,
)


def clip_from_config(config: Mapping[str, Any]) -> CLIP:
    """The CLIP, or the one tower of it, that a config describes.

    Raises:
        ValueError: naming a key or a value that a CLIP has no field for.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"config.json: model_type={kind!r} is no CLIP's, expected one of {', '.join(KINDS)}")
    classes, known = (
        config.get("architectures") or [KINDS[kind]],
        [KINDS[kind], *([BARE[kind]] if kind in BARE else [])],
    )
    if classes not in [[name] for name in known]:
        raise ValueError(f"config.json is of {classes!r}, expected a {' or '.join(known)}")
    projected = classes == [KINDS[kind]]
    if kind == "clip_text_model":
        text, embedding_dim = _text(TEXT.read(config))
        return CLIP(None, text, embedding_dim if projected else text.width, projected=projected)
    if kind == "clip_vision_model":
        vision, embedding_dim = _vision(VISION.read(config))
        return CLIP(vision, None, embedding_dim if projected else vision.width, projected=projected)
    both = BOTH.read(config)
    vision, _ = _vision(VISION.read(_part(config, "vision_config", VISION), prefix="vision_config."))
    text, _ = _text(TEXT.read(_part(config, "text_config", TEXT), prefix="text_config."))
    return CLIP(vision, text, both["embedding_dim"], logit_scale_init=both["logit_scale_init"])


def _part(config: Mapping[str, Any], name: str, table: Table) -> dict[str, Any]:
    """A tower's config; where there is an old `_dict` too, that one wins, its defaults included."""
    part, old = config.get(name) or {}, config.get(f"{name}_dict")
    for key, value in ((name, part), (f"{name}_dict", old or {})):
        if not isinstance(value, dict):
            raise ValueError(f"config.json: {key} is not an object")
    defaults = {field.key: field.default for field in table.fields if field.written}
    return part if old is None else {**part, **defaults, **old}


def _text(c: dict[str, Any]) -> tuple[TextTower, int]:
    """The tower, and the dimensions of the space that it embeds in."""
    ratio, embedding_dim = c.pop("mlp_width") / c["width"], c.pop("embedding_dim")
    return TextTower(**c, mlp_ratio=ratio), embedding_dim


def _vision(c: dict[str, Any]) -> tuple[VisionTower, int]:
    ratio, embedding_dim = c.pop("mlp_width") / c["width"], c.pop("embedding_dim")
    return VisionTower(**c, mlp_ratio=ratio), embedding_dim


def config_from_clip(net: CLIP, end_id: int | None = None) -> dict[str, Any]:
    """The config of the transformers model that computes the same; of one tower's, where `net` has one.

    `end_id` is what transformers looks for to find a caption's end; None is the last id, as in CLIP's vocabulary.

    Raises:
        ValueError: if transformers has no such CLIP, or `end_id` is none that it can look for.
    """
    text = None if net.text is None else _text_config(net.text, net.embedding_dim, end_id)
    vision = None if net.vision is None else _vision_config(net.vision, net.embedding_dim)
    if text is None or vision is None:
        if (only := text or vision) is None:
            raise ValueError("a CLIP without towers (vision=None, text=None) is no model: not exported")
        return {**only, "architectures": [(KINDS if net.projected else BARE)[only["model_type"]]]}
    if not net.projected:
        raise ValueError("transformers' CLIP of two towers has projections (projected=False): not exported")
    both = BOTH.write({"embedding_dim": net.embedding_dim, "logit_scale_init": net.logit_scale_init})
    kind = {"architectures": [KINDS["clip"]], "model_type": "clip"}
    return {**both, **kind, "text_config": text, "vision_config": vision}


def _shape(tower: TextTower | VisionTower, embedding_dim: int) -> dict[str, Any]:
    """Our fields that both towers have."""
    names = ("width", "depth", "heads", "activation", "norm_eps")
    width = round(tower.mlp_ratio * tower.width)
    return {name: getattr(tower, name) for name in names} | {"mlp_width": width, "embedding_dim": embedding_dim}


def _text_config(text: TextTower, embedding_dim: int, end_id: int | None) -> dict[str, Any]:
    end_id = text.vocab_size - 1 if end_id is None else end_id
    if not 0 <= end_id < text.vocab_size or end_id == 2:
        raise ValueError(
            f"end_id={end_id}: expected below vocab_size={text.vocab_size}, and not 2, for which transformers takes "
            "the largest id for a caption's end"
        )
    own = {"vocab_size": text.vocab_size, "context": text.context}
    ids = {"bos_token_id": None, "eos_token_id": end_id, "pad_token_id": None}
    return {**TEXT.write(_shape(text, embedding_dim) | own), "model_type": "clip_text_model", **ids}


def _vision_config(vision: VisionTower, embedding_dim: int) -> dict[str, Any]:
    own = {"image_size": vision.image_size, "patch": vision.patch}
    return {**VISION.write(_shape(vision, embedding_dim) | own), "model_type": "clip_vision_model"}


def read_pixels(folder: str | Path, image_size: int) -> Pixels:
    """How pictures are read for a tower that sees `image_size` pixels, from a folder's preprocessor_config.json, or
    processor_config.json, which transformers 5 writes for pictures and captions together; CLIP's own way if there is
    neither.

    Raises:
        ValueError: naming what is not supported, or if pictures do not come to be squares of that size.
    """
    path, config = Path(folder) / PREPROCESSOR, None
    if path.is_file():
        config = store.read_json(path)
    elif (path := path.with_name(PROCESSOR)).is_file():
        config = store.read_json(path).get("image_processor")
    if not isinstance(config, dict):
        return Pixels()
    c = PIXELS.read(config, str(path))
    size, squash = c["size"] or (image_size, False)
    shown = (c["crop"] or (image_size, True))[0] if c["cropped"] else size
    if shown != image_size or size < shown or not (c["cropped"] or squash):
        raise ValueError(
            f"{path}: size={config.get('size')!r}, do_center_crop={c['cropped']} and crop_size="
            f"{config.get('crop_size')!r} do not make squares of {image_size} pixels, which the vision tower expects"
        )
    mean, std = (c["mean"], c["std"]) if c["normalised"] else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Pixels(mean, std, 0 if size == image_size else size, squash, c["filter"])


def pixels_config(pixels: Pixels, image_size: int) -> dict[str, Any]:
    """The preprocessor_config.json of what `read_pixels` reads."""
    side, crop = (pixels.short_side or image_size, pixels.squash), (image_size, True)
    known = {"normalised": True, "mean": pixels.mean, "std": pixels.std, "filter": pixels.filter}
    written = PIXELS.write({**known, "size": side, "cropped": True, "crop": crop})
    return {**written, "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True}
