"""The folders decoder/ and text_proj/ of a diffusers unCLIP pipeline (Karlo) <-> `Decoder` and its parameters."""

import functools
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from flaxgen import programs
from flaxgen.nets.decoder import Decoder
from flaxgen.types import Params, PRNGKey
from flaxgen.weights import store
from flaxgen.weights.decoder_config import configs_from_decoder, decoder_from_configs
from flaxgen.weights.rules import Rule, from_params, tensor_name, to_params, under
from flaxgen.weights.unet2d import ATTENTION_PLACES, DENSE, NORM, RULES, STEM

TOKENS = under([("add_k_proj", "token_key"), ("add_v_proj", "token_value")], DENSE)
UNET_RULES = (*RULES, *under(ATTENTION_PLACES, TOKENS))
PROJECTION_RULES = (
    Rule("learned_classifier_free_guidance_embeddings", "null_image"),
    *under(
        [
            ("embedding_proj", "text_embedding"),
            ("clip_image_embeddings_project_to_time_embeddings", "image_embedding"),
            ("clip_extra_context_tokens_proj", "image_tokens"),
            ("encoder_hidden_states_proj", "text_tokens"),
        ],
        DENSE,
    ),
    *under([("text_encoder_hidden_states_norm", "text_norm")], NORM),
)


def import_decoder(decoder_folder: str | Path, text_proj_folder: str | Path) -> tuple[Decoder, dict[str, Any]]:
    """The net and its parameters (numpy, float32) from a UNet2DConditionModel and an UnCLIPTextProjModel.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if a config.json or safetensors are not there.
    """
    folders = Path(decoder_folder), Path(text_proj_folder)
    net = decoder_from_configs(*(store.read_json(folder / "config.json") for folder in folders))
    parts = []
    for folder, like, rules in zip(folders, _split(abstract_params(net)), (UNET_RULES, PROJECTION_RULES), strict=True):
        params = to_params(rules, store.read_folder(folder, STEM))
        parts.append(store.fit(params, like, str(folder), lambda path, rules=rules: tensor_name(rules, path)))
    unet, projection = parts
    return net, {"unet": unet, **projection}


def export_decoder(net: Decoder, params: Params, decoder_folder: str | Path, text_proj_folder: str | Path) -> None:
    """Writes two folders that diffusers reads; the inverse of `import_decoder`, bit for bit.

    Raises:
        ValueError: naming a field that diffusers' two models do not have, or a tensor that is not the net's.
    """
    configs = configs_from_decoder(net)
    fitted = store.fit(store.flatten(params), abstract_params(net), "the parameters to export")
    folders = Path(decoder_folder), Path(text_proj_folder)
    for folder, config, part, rules in zip(
        folders, configs, _split(fitted), (UNET_RULES, PROJECTION_RULES), strict=True
    ):
        folder.mkdir(parents=True, exist_ok=True)
        store.write_file(folder / f"{STEM}.safetensors", from_params(rules, store.flatten(part)))
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _split(params: Params) -> tuple[Params, Params]:
    """The UNet's parameters, and those around it."""
    return params["unet"], {name: value for name, value in params.items() if name != "unet"}


def abstract_params(net: Decoder) -> Params:
    """The shapes and dtypes of a decoder's parameters, as ShapeDtypeStructs."""
    return programs.shapes(functools.partial(_init, net))["params"]


def _init(net: Decoder, key: PRNGKey) -> Params:
    unet = net.unet
    size = unet.patch * 2 ** (len(unet.multipliers) - 1)
    x, embedding = jnp.zeros((1, size, size, unet.in_channels)), jnp.zeros((1, net.embedding_dim))
    hidden = jnp.zeros((1, 1, net.text_dim)) if net.text is None else None
    ids, mask = None if net.text is None else jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    given = (x, jnp.ones(1), embedding, embedding, hidden, mask)
    return net.init(key, *given, text_ids=ids)
