"""The config.json of transformers' CLIP models <-> the fields of `CLIP` and its towers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxgen.nets.clip import CLIP, MEAN, STD, TextTower, VisionTower
from flaxgen.weights import store

KINDS = {
    "clip": "CLIPModel",
    "clip_text_model": "CLIPTextModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
}
"""`model_type` and the class that has the projection too."""
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
TOWER: Mapping[str, Any] = {
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "num_hidden_layers": 12,
}
TEXT: Mapping[str, Any] = {
    **TOWER,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_attention_heads": 8,
}
VISION: Mapping[str, Any] = {
    **TOWER,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_attention_heads": 12,
}
BOTH: Mapping[str, Any] = {"projection_dim": 512, "logit_scale_init_value": 2.6592}
"""What a key that config.json leaves out means."""
SUPPORTED = {"hidden_act": tuple(ACTIVATIONS), "attention_dropout": (0, 0.0), "num_channels": (3,)}
PARTS = ("text_config", "vision_config", "text_config_dict", "vision_config_dict")
IGNORED = frozenset(
    """
    _name_or_path _commit_hash _attn_implementation_autoset add_cross_attention architectures bad_words_ids
    begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dropout dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label
    initializer_factor initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length min_length
    model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix problem_type remove_invalid_values repetition_penalty
    return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    typical_p use_bfloat16 use_return_dict
    """.split()  # noqa: SIM905
)
"""Keys that transformers writes into every config; none changes what a CLIP computes."""
PREPROCESSOR = "preprocessor_config.json"


def clip_from_config(config: Mapping[str, Any]) -> CLIP:
    """The CLIP, or the one tower of it, that a config describes.

    Raises:
        ValueError: naming a key or a value that a CLIP has no field for.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"config.json: model_type={kind!r} is no CLIP's, expected one of {', '.join(KINDS)}")
    classes = config.get("architectures") or [KINDS[kind]]
    if classes != [KINDS[kind]]:
        raise ValueError(f"config.json is of {classes!r}, expected a {KINDS[kind]}")
    if kind == "clip_text_model":
        text = _values(config, TEXT, "")
        return CLIP(vision=None, text=_text(text), embedding_dim=text["projection_dim"])
    if kind == "clip_vision_model":
        vision = _values(config, VISION, "")
        return CLIP(vision=_vision(vision), text=None, embedding_dim=vision["projection_dim"])
    both = _values({key: value for key, value in config.items() if key not in PARTS}, BOTH, "")
    return CLIP(
        vision=_vision(_values(_part(config, "vision_config", VISION), VISION, "vision_config.")),
        text=_text(_values(_part(config, "text_config", TEXT), TEXT, "text_config.")),
        embedding_dim=both["projection_dim"],
        logit_scale_init=float(both["logit_scale_init_value"]),
    )


def _part(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's config; where there is an old `_dict` too, that one wins, its defaults included."""
    part, old = config.get(name) or {}, config.get(f"{name}_dict")
    for key, value in ((name, part), (f"{name}_dict", old or {})):
        if not isinstance(value, dict):
            raise ValueError(f"config.json: {key} is not an object")
    return part if old is None else {**part, **defaults, **old}


def _values(given: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All values by key, checked."""
    values = {**defaults, **{key: value for key, value in given.items() if key not in IGNORED}}
    if values.pop("pruned_heads", None) not in (None, {}):
        raise ValueError(f"config.json: {where}pruned_heads is not supported, only {{}}")
    for key, value in values.items():
        if key not in defaults:
            raise ValueError(f"config.json: a CLIP has no {where}{key}")
        if not _is_like(value, defaults[key]):
            raise ValueError(f"config.json: {where}{key}={value!r} is not what a CLIP expects, such as {defaults[key]}")
        if key in SUPPORTED and value not in SUPPORTED[key]:
            known = " or ".join(map(repr, SUPPORTED[key]))
            raise ValueError(f"config.json: {where}{key}={value!r} is not supported, only {known}")
    return values


def _is_like(value: Any, default: Any) -> bool:
    """Whether a JSON value is of the type of a default, and counts something where that does."""
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default) and (not isinstance(value, int) or value > 0)


def _shape(c: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "width": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "heads": c["num_attention_heads"],
        "mlp_ratio": c["intermediate_size"] / c["hidden_size"],
        "activation": ACTIVATIONS[c["hidden_act"]],
        "norm_eps": float(c["layer_norm_eps"]),
    }


def _text(c: Mapping[str, Any]) -> TextTower:
    return TextTower(vocab_size=c["vocab_size"], context=c["max_position_embeddings"], **_shape(c))


def _vision(c: Mapping[str, Any]) -> VisionTower:
    return VisionTower(image_size=c["image_size"], patch=c["patch_size"], **_shape(c))


def config_from_clip(net: CLIP, end_id: int | None = None) -> dict[str, Any]:
    """The config of the transformers model that computes the same; of one tower's, where `net` has one.

    `end_id` is what transformers looks for to find a caption's end; None is the last id, as in CLIP's vocabulary.

    Raises:
        ValueError: if there is no tower, or `end_id` is none that transformers can look for.
    """
    text = None if net.text is None else _text_config(net.text, net.embedding_dim, end_id)
    vision = None if net.vision is None else _vision_config(net.vision, net.embedding_dim)
    if text is None or vision is None:
        if (only := text or vision) is None:
            raise ValueError("a CLIP without towers (vision=None, text=None) is no model: not exported")
        return {**only, "architectures": [KINDS[only["model_type"]]]}
    return {
        "architectures": [KINDS["clip"]],
        "model_type": "clip",
        "projection_dim": net.embedding_dim,
        "logit_scale_init_value": net.logit_scale_init,
        "text_config": text,
        "vision_config": vision,
    }


def _tower_config(tower: TextTower | VisionTower, embedding_dim: int) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "hidden_act": names[tower.activation],
        "layer_norm_eps": tower.norm_eps,
        "attention_dropout": 0.0,
        "hidden_size": tower.width,
        "intermediate_size": round(tower.mlp_ratio * tower.width),
        "projection_dim": embedding_dim,
        "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.heads,
    }


def _text_config(text: TextTower, embedding_dim: int, end_id: int | None) -> dict[str, Any]:
    end_id = text.vocab_size - 1 if end_id is None else end_id
    if not 0 <= end_id < text.vocab_size or end_id == 2:
        raise ValueError(
            f"end_id={end_id}: expected below vocab_size={text.vocab_size}, and not 2, for which transformers takes "
            "the largest id for a caption's end"
        )
    return {
        **_tower_config(text, embedding_dim),
        "model_type": "clip_text_model",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": None,
    }


def _vision_config(vision: VisionTower, embedding_dim: int) -> dict[str, Any]:
    return {
        **_tower_config(vision, embedding_dim),
        "model_type": "clip_vision_model",
        "image_size": vision.image_size,
        "patch_size": vision.patch,
        "num_channels": 3,
    }


def read_pixels(folder: str | Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of pixels in [0, 1], from a folder's preprocessor_config.json; CLIP's own if there is none.

    Raises:
        ValueError: if they are not three numbers, or pixels are brought to another range before.
    """
    path = Path(folder) / PREPROCESSOR
    if not path.is_file():
        return MEAN, STD
    config = store.read_json(path)
    factor = config.get("rescale_factor", 1 / 255)
    if config.get("do_rescale", True) is not True or not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-6:
        raise ValueError(f"{path}: pixels are not divided by 255 (do_rescale, rescale_factor): not supported")
    if config.get("do_normalize", True) is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = config.get("image_mean", MEAN), config.get("image_std", STD)
    return _triple(path, "image_mean", mean), _triple(path, "image_std", std)


def _triple(path: Path, key: str, value: Any) -> tuple[float, float, float]:
    numbers = isinstance(value, list | tuple) and len(value) == 3 and all(type(v) in (int, float) for v in value)
    if not numbers or (key == "image_std" and not all(v > 0 for v in value)):
        raise ValueError(f"{path}: {key}={value!r}, expected three numbers, of image_std above 0")
    return float(value[0]), float(value[1]), float(value[2])


def pixels_config(net: CLIP) -> dict[str, Any]:
    """The preprocessor_config.json for a net's vision tower."""
    size = 0 if net.vision is None else net.vision.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(net.mean),
        "image_std": list(net.std),
    }
