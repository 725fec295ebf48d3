"""The weights of DALL-E's discrete autoencoder <-> `DalleVae`: OpenAI's own names, for encoder and decoder, and
transformers' FlavaImageCodebook, which is the encoder.

OpenAI publishes two pickles, which are never read here: `scripts/convert_openai_dvae.py` turns them into a folder of
encoder.safetensors and decoder.safetensors. The fields of the net are read from names and shapes; the size of pictures
is in neither.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.autoencoder import abstract_params
from flaxgen.weights.convert import export_params, import_params, write_folder
from flaxgen.weights.fields import COUNT, Field, Table, only
from flaxgen.weights.generate import LEAVES, generate_rules
from flaxgen.weights.rules import Rule

PARTS = ("encoder", "decoder")
STEM = "model"
GROUPS = 4
"""Of every FlavaImageCodebook; they are 1, 2, 4 and 8 times as wide as the first."""
FLAVA = Table(
    "flava_image_codebook",
    (
        Field("num_groups", GROUPS, only(GROUPS)),
        Field("input_channels", 3, COUNT, "in_channels"),
        Field("num_blocks_per_group", 2, COUNT, "depth"),
        Field("hidden_size", 256, COUNT, "channels"),
        Field("vocab_size", 8192, COUNT, "codes"),
    ),
    class_key="model_type",
    open=True,  # what transformers writes into every config changes nothing here
)
Shapes = Mapping[str, tuple[int, ...]]


def import_openai(folder: str | Path, image_size: int = 256) -> tuple[DalleVae, dict[str, Any]]:
    """The net and its parameters {"encoder", "decoder"} (numpy, float32) from encoder.safetensors and
    decoder.safetensors.

    Raises:
        ValueError: naming a tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if a file is not there.
    """
    paths = {part: Path(folder) / f"{part}.safetensors" for part in PARTS}
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}: scripts/convert_openai_dvae.py makes it of OpenAI's {path.stem}.pkl"
            )
    shapes = {part: {k: e.shape for k, e in store.read_header(path).items()} for part, path in paths.items()}
    net = dalle_vae_from_shapes(shapes["encoder"], shapes["decoder"], str(folder), image_size)
    like = abstract_params(net)
    return net, {
        part: import_params(openai_rules(like[part]), store.open_file(path), like[part], str(path))
        for part, path in paths.items()
    }


def export_openai(net: DalleVae, params: Params, folder: str | Path, parts: Sequence[str] = PARTS) -> None:
    """Writes encoder.safetensors and decoder.safetensors, or one of them, which the state_dicts of OpenAI's two modules
    take; the inverse of `import_openai`, bit for bit.

    Raises:
        ValueError: naming a tensor that is not the net's, or not finite.
    """
    like, folder = abstract_params(net), Path(folder)
    tensors = {part: export_params(openai_rules(like[part]), params[part], like[part]) for part in parts}
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        store.write_file(folder / f"{part}.safetensors", tensors[part])


def import_openai_decoder(net: DalleVae, path: str | Path) -> tuple[DalleVae, dict[str, Any]]:
    """The net, whose `bottleneck` becomes that of the decoder in the file, and the parameters {"decoder"}.

    Raises:
        ValueError: naming a tensor that is missing, extra, wrongly shaped or not finite.
    """
    shape = {name: entry.shape for name, entry in store.read_header(Path(path)).items()}.get("blocks.input.w", ())
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{path}: tensor 'blocks.input.w' of 4 dimensions is missing: this is not OpenAI's dVAE")
    net = net.clone(bottleneck=shape[0])
    like = abstract_params(net)["decoder"]
    return net, {"decoder": import_params(openai_rules(like), store.open_file(Path(path)), like, str(path))}


def import_flava(
    folder: str | Path, image_size: int = 256, keep_dtype: bool = False
) -> tuple[DalleVae, dict[str, Any]]:
    """The net, whose decoder is OpenAI's, and the parameters {"encoder"} (numpy, float32, or with `keep_dtype` as they
    are) from a folder of transformers' FlavaImageCodebook.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    net = DalleVae(image_size=image_size, **FLAVA.read(store.read_json(folder / "config.json")))
    like = abstract_params(net)["encoder"]
    tensors = store.open_folder(folder, STEM)
    return net, {"encoder": import_params(flava_rules(like), tensors, like, str(folder), keep_dtype)}


def export_flava(net: DalleVae, params: Params, folder: str | Path) -> None:
    """Writes a folder that `FlavaImageCodebook.from_pretrained` reads, of the encoder alone; the inverse of
    `import_flava`, bit for bit.

    Raises:
        ValueError: naming a field that no FlavaImageCodebook has, or a tensor that is not the net's.
    """
    if tuple(net.multipliers) != DalleVae.multipliers:
        raise ValueError(
            f"multipliers={net.multipliers} are not in a FlavaImageCodebook, only {DalleVae.multipliers}: not exported"
        )
    config = FLAVA.write({key: getattr(net, key) for key in ("in_channels", "depth", "channels", "codes")})
    like = abstract_params(net)["encoder"]
    tensors = export_params(flava_rules(like), params["encoder"], like)
    write_folder(Path(folder), STEM, config | {"architectures": ["FlavaImageCodebook"]}, tensors)


def openai_rules(like: Params) -> Sequence[Rule]:
    """The names of a part's tensors at OpenAI; `like` may be ShapeDtypeStructs."""
    return generate_rules(like, _namer("blocks.group_{i}.block_{j}", "res_path"), {"kernel": "w", "bias": "b"})


def flava_rules(like: Params) -> Sequence[Rule]:
    """The names of the encoder's tensors in a FlavaImageCodebook."""
    return generate_rules(like, _namer("blocks.group_{i}.group.block_{j}", "res_path.path"), LEAVES)


def _namer(block: str, path: str) -> Callable[[str], str]:
    """What modules are called, of which groups and blocks are numbered from 1 there."""
    ends = {"conv_in": "blocks.input", "conv_out": "blocks.output.conv"}

    def name(module: str) -> str:
        if module in ends:
            return ends[module]
        place, last = module.split("/")
        numbers = [int(number) + 1 for number in re.findall(r"\d+", place)]
        within = "id_path" if last == "shortcut" else f"{path}.{last}"
        return f"{block.format(i=numbers[0], j=numbers[1])}.{within}"

    return name


def dalle_vae_from_shapes(encoder: Shapes, decoder: Shapes, where: str, image_size: int) -> DalleVae:
    """The net whose parts have tensors of these shapes; what does not fit together is refused by the import.

    Raises:
        ValueError: naming a tensor that is missing, or of too few dimensions.
    """

    def size(shapes: Shapes, name: str, axis: int) -> int:
        shape = shapes.get(name, ())
        if len(shape) != 4 or 0 in shape:
            raise ValueError(f"{where}: tensor {name!r} of 4 dimensions is missing: this is not OpenAI's dVAE")
        return shape[axis]

    blocks = [match.groups() for n in encoder if (match := re.match(r"blocks\.group_(\d{1,2})\.block_(\d{1,2})\.", n))]
    groups = range(1, 1 + max((int(group) for group, _ in blocks), default=0))
    channels = size(encoder, "blocks.input.w", 0)
    widths = [size(encoder, f"blocks.group_{i}.block_1.res_path.conv_4.w", 0) for i in groups]
    if odd := [width for width in widths if width % channels]:
        raise ValueError(f"{where}: a group has {odd[0]} channels, expected a multiple of the first one's {channels}")
    return DalleVae(
        image_size=image_size,
        in_channels=size(encoder, "blocks.input.w", 1),
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        depth=max((int(block) for _, block in blocks), default=0),
        codes=size(encoder, "blocks.output.conv.w", 0),
        bottleneck=size(decoder, "blocks.input.w", 0),
    )
