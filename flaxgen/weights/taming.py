"""The state_dicts of CompVis' autoencoders, saved as safetensors <-> `Autoencoder` and its parameters: the VQGANs of
taming-transformers, and the first stages of latent-diffusion, which have the same names.

A checkpoint of a run also holds the training loss, "loss.": the discriminator, and LPIPS with all of VGG16. It is no
part of the autoencoder: it is left out when a file is read, and not written. The fields of the net are read from names
and shapes; the size of pictures is in neither.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.autoencoder import CODEBOOK, abstract_params, count_codes
from flaxgen.weights.autoencoder_config import NORM_EPS, check_plain
from flaxgen.weights.convert import export_params, import_params
from flaxgen.weights.layouts import POINTWISE
from flaxgen.weights.rules import Rule, under
from flaxgen.weights.unet2d import CONVOLUTION, NORM

Shapes = Mapping[str, tuple[int, ...]]
LOSS = "loss."
GROUPS = 32
"""The groups of every norm, which are in no tensor."""
MARKS = ("encoder.mid.block_1.norm1.weight", "decoder.up.0.block.0.norm1.weight")
"""Tensors that every such state_dict has, and no other net."""
RESBLOCK = (
    *under([("norm1", "norm_1"), ("norm2", "norm_2")], NORM),
    *under([("conv1", "conv_1"), ("conv2", "conv_2"), ("nin_shortcut", "shortcut")], CONVOLUTION),
)
LINEAR_AS_CONVOLUTION = (Rule("weight", "kernel", POINTWISE), Rule("bias", "bias"))
ATTENTION = (
    *under([("norm", "norm")], NORM),
    *under([("q", "query"), ("k", "key"), ("v", "value"), ("proj_out", "out")], LINEAR_AS_CONVOLUTION),
)


def import_taming(path: str | Path, image_size: int = 256) -> tuple[Autoencoder, dict[str, Any]]:
    """The net and its parameters {"encoder", "decoder"} and of a VQGAN "codebook" [K D] (numpy, float32).

    Raises:
        ValueError: naming a tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    opened = store.open_file(path)
    tensors = opened.without(name for name in opened if name.startswith(LOSS))
    shapes = {name: entry.shape for name, entry in store.read_header(path).items() if name in tensors}
    net = autoencoder_from_shapes(shapes, str(path), image_size)
    codebook = shapes.get(str(CODEBOOK.tensor))
    codes = codebook[0] if codebook else 0
    return net, import_params(rules_for(net), tensors, abstract_params(net, codes), str(path))


def export_taming(net: Autoencoder, params: Params, path: str | Path) -> None:
    """Writes what CompVis' `VQModel.load_state_dict` takes, without a codebook in `params` its `AutoencoderKL`'s; the
    inverse of `import_taming`, bit for bit.

    Raises:
        ValueError: naming a field that no such net has, or a tensor that is not the net's.
    """
    check_plain(net, "a CompVis autoencoder")
    if net.norm_groups != GROUPS or net.spatial_norm:
        raise ValueError(
            f"norm_groups={net.norm_groups}, spatial_norm={net.spatial_norm} is not in a CompVis autoencoder, only "
            f"{GROUPS} and False: not exported"
        )
    like = abstract_params(net, count_codes(params))
    store.write_file(Path(path), export_params(rules_for(net), params, like))


def rules_for(net: Autoencoder) -> tuple[Rule, ...]:
    """The names of a net's tensors. Levels are numbered by resolution both ways: `up.0` is the last."""
    levels = len(net.multipliers)
    places = [("down.{i}", "down_{i}"), *((f"up.{levels - 1 - i}", f"up_{i}") for i in range(levels))]
    blocks = [(f"{tensor}.block.{{j}}", f"{param}_resblock_{{j}}") for tensor, param in places]
    attentions = [(f"{tensor}.attn.{{j}}", f"{param}_attention_{{j}}") for tensor, param in places]
    resamples = [
        (f"{tensor}.{'downsample' if tensor.startswith('down') else 'upsample'}.conv", f"{param}_resample/conv")
        for tensor, param in places
    ]
    middle = [("mid.block_1", "middle_resblock_0"), ("mid.block_2", "middle_resblock_1")]
    part = (
        *under([("conv_in", "conv_in"), ("conv_out", "conv_out"), *resamples], CONVOLUTION),
        *under([("norm_out", "norm_out")], NORM),
        *under([*middle, *blocks], RESBLOCK),
        *under([("mid.attn_1", "middle_attention"), *attentions], ATTENTION),
    )
    return (
        *under([("encoder", "encoder"), ("decoder", "decoder")], part),
        *under([("quant_conv", "encoder/quant_conv"), ("post_quant_conv", "decoder/post_quant_conv")], CONVOLUTION),
        CODEBOOK,
    )


def autoencoder_from_shapes(shapes: Shapes, where: str, image_size: int) -> Autoencoder:
    """The net whose state_dict has tensors of these shapes; what does not fit together is refused by the import.

    Raises:
        ValueError: naming a tensor that is missing, or of too few dimensions.
    """

    def size(name: str, axis: int) -> int:
        shape = shapes.get(name, ())
        if len(shape) != 4 or 0 in shape:
            raise ValueError(f"{where}: tensor {name!r} of 4 dimensions is missing: this is no CompVis autoencoder")
        return shape[axis]

    numbers = [int(match[1]) for name in shapes if (match := re.match(r"encoder\.down\.(\d{1,2})\.", name))]
    levels = range(1 + max(numbers, default=0))
    widths = [size(f"encoder.down.{i}.block.0.conv1.weight", 0) for i in levels]
    channels = size("encoder.conv_in.weight", 0)
    latent_channels = size("decoder.conv_in.weight", 1)
    quant_convs = "quant_conv.weight" in shapes
    code_channels = size("post_quant_conv.weight", 1) if quant_convs else latent_channels
    attending = [f"encoder.down.{i}.attn.0.q.weight" in shapes for i in levels]
    return Autoencoder(
        image_size=image_size,
        in_channels=size("encoder.conv_in.weight", 1),
        channels=channels,
        multipliers=tuple(w // channels if w % channels == 0 else w / channels for w in widths),
        depth=sum(re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", name) is not None for name in shapes),
        attention=tuple(SelfAttention() if attends else None for attends in attending) if any(attending) else (),
        middle=SelfAttention() if "encoder.mid.attn_1.q.weight" in shapes else "resblocks",
        latent_channels=latent_channels,
        moments=size("encoder.conv_out.weight", 0) == 2 * latent_channels,
        quant_convs=quant_convs,
        code_channels=0 if code_channels == latent_channels else code_channels,
        norm_groups=GROUPS,
        norm_eps=NORM_EPS,
    )


def is_taming(names: Mapping[str, Any]) -> bool:
    """Whether a file with tensors of these names is such a state_dict."""
    return all(mark in names for mark in MARKS)
