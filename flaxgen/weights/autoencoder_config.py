"""The config.json of diffusers' AutoencoderKL, VQModel and AutoencoderTiny <-> the fields of our nets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.weights.fields import (
    COUNT,
    FLAG,
    NUMBER,
    Field,
    Kind,
    Table,
    check_supported,
    choice,
    only,
    optional,
    several,
)

Net = Autoencoder | TinyAutoencoder
NORM_EPS = 1e-6
SPATIAL_GROUPS = 32
"""The groups of diffusers' spatial norms, whatever norm_num_groups says."""
DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}
"""The blocks that a level can be, and whether they attend."""
SIDE = Kind(
    "a whole number from 1 to 2147483647, or two that are one",
    lambda value: COUNT.accepts(value) or (several(COUNT, 2).accepts(value) and value[0] == value[1]),
    lambda value: value if COUNT.accepts(value) else value[0],
)


@dataclass(frozen=True)
class Latents:
    """What a config says of latents beside the net: how pipelines scale them, to be kept with the weights.

    A diffusion model works on (z - shift_factor) * scaling_factor, or per channel on (z - latents_mean) / latents_std *
    scaling_factor. `force_upcast` asks for float32. `lookup_from_codebook` is a VQModel's, which then decodes indices;
    `latent_magnitude` and `latent_shift` are an AutoencoderTiny's, which by them shows latents as pictures.
    """

    scaling_factor: float = 1.0
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = False
    lookup_from_codebook: bool = False
    latent_magnitude: float = 3.0
    latent_shift: float = 0.5


class Described(NamedTuple):
    """What a config says in all; `codes` counts the rows of a codebook, 0 where there is none."""

    net: Net
    latents: Latents
    codes: int = 0


PICTURES = (Field("in_channels", 3, COUNT, "in_channels"), Field("out_channels", 3, COUNT, "out_channels"))
LEVELS = (
    *PICTURES,
    Field("down_block_types", ("DownEncoderBlock2D",), several(choice(DOWN)), "down"),
    Field("up_block_types", ("UpDecoderBlock2D",), several(choice(UP)), "up"),
    Field("block_out_channels", (64,), several(COUNT), "widths"),
    Field("layers_per_block", 1, COUNT, "depth"),
    Field("act_fn", "silu", only("silu", "swish")),
    Field("norm_num_groups", 32, COUNT, "norm_groups"),
    Field("sample_size", 32, SIDE, "image_size"),
    Field("mid_block_add_attention", True, FLAG, "middle"),
    Field("scaling_factor", 0.18215, NUMBER, "scaling_factor"),
)
KL = Table(
    "AutoencoderKL",
    (
        *LEVELS,
        Field("latent_channels", 4, COUNT, "latent_channels"),
        Field("shift_factor", None, optional(NUMBER), "shift_factor"),
        Field("latents_mean", None, optional(several(NUMBER)), "latents_mean"),
        Field("latents_std", None, optional(several(NUMBER)), "latents_std"),
        Field("force_upcast", True, FLAG, "force_upcast"),
        Field("use_quant_conv", True, FLAG, "quant_convs"),
        Field("use_post_quant_conv", True, FLAG, "post_quant_conv"),
    ),
)
VQ = Table(
    "VQModel",
    (
        *LEVELS,
        Field("latent_channels", 3, COUNT, "latent_channels"),
        Field("num_vq_embeddings", 256, COUNT, "codes"),
        Field("vq_embed_dim", None, optional(COUNT, 0), "code_channels"),
        Field("norm_type", "group", choice({"group": False, "spatial": True}), "spatial_norm"),
        Field("lookup_from_codebook", False, FLAG, "lookup_from_codebook"),
        Field("force_upcast", False, FLAG, "force_upcast"),
    ),
)
TINY = Table(
    "AutoencoderTiny",
    (
        *PICTURES,
        Field("encoder_block_out_channels", (64, 64, 64, 64), several(COUNT), "encoder_widths"),
        Field("decoder_block_out_channels", (64, 64, 64, 64), several(COUNT), "decoder_widths"),
        Field("act_fn", "relu", only("relu")),
        Field("upsample_fn", "nearest", only("nearest")),
        Field("latent_channels", 4, COUNT, "latent_channels"),
        Field("upsampling_scaling_factor", 2, only(2)),
        Field("num_encoder_blocks", (1, 3, 3, 3), several(COUNT), "encoder_depth"),
        Field("num_decoder_blocks", (3, 3, 3, 1), several(COUNT), "decoder_depth"),
        Field("latent_magnitude", 3, NUMBER, "latent_magnitude"),
        Field("latent_shift", 0.5, NUMBER, "latent_shift"),
        Field("force_upcast", False, FLAG, "force_upcast"),
        Field("scaling_factor", 1.0, NUMBER, "scaling_factor"),
        Field("shift_factor", 0.0, NUMBER, "shift_factor"),
    ),
    frozenset({"block_out_channels"}),  # the decoder's once more
)
TABLES = {table.name: table for table in (KL, VQ, TINY)}


def autoencoder_from_config(config: Mapping[str, Any]) -> Described:
    """The net that the config of one of TABLES describes, and what it says beside.

    Raises:
        ValueError: naming the class, a key or a value that our nets have no field for.
    """
    name = config.get("_class_name")
    if name not in TABLES:
        raise ValueError(f"config.json says _class_name={name!r}, expected one of {', '.join(TABLES)}")
    c = TABLES[name].read(config)
    check_supported("out_channels", c["out_channels"], (c["in_channels"],))
    latents = Latents(**{key: c[key] for key in vars(Latents()) if key in c})
    if name == TINY.name:
        return Described(_tiny(c), latents)
    widths = c["widths"]
    shared = {key: c[key] for key in ("image_size", "in_channels", "depth", "latent_channels", "norm_groups")}
    shared |= {
        "channels": widths[0],
        "multipliers": tuple(w // widths[0] if w % widths[0] == 0 else w / widths[0] for w in widths),
        "attention": _attention(c),
        "middle": SelfAttention() if c["middle"] else "resblocks",
        "norm_eps": NORM_EPS,
    }
    if name == KL.name:
        check_supported("use_post_quant_conv", c["post_quant_conv"], (c["quant_convs"],))
        return Described(Autoencoder(**shared, quant_convs=c["quant_convs"]), latents)
    if c["spatial_norm"]:
        check_supported("norm_num_groups", c["norm_groups"], (SPATIAL_GROUPS,))
        check_supported("vq_embed_dim", c["code_channels"] or c["latent_channels"], (c["latent_channels"],))
    more = {key: c[key] for key in ("code_channels", "spatial_norm")}
    return Described(Autoencoder(**shared, **more, moments=False), latents, c["codes"])


def _attention(c: Mapping[str, Any]) -> tuple[SelfAttention | None, ...]:
    """Which levels attend; the way up has to mirror the way down."""
    for key, blocks in (("down_block_types", c["down"]), ("up_block_types", c["up"])):
        if len(blocks) != len(c["widths"]):
            raise ValueError(f"config.json: {key} has {len(blocks)} blocks for {len(c['widths'])} levels")
    if c["down"] != c["up"][::-1]:
        raise ValueError("config.json: up_block_types attend at other levels than down_block_types: not supported")
    return tuple(SelfAttention() if attends else None for attends in c["down"]) if any(c["down"]) else ()


def _tiny(c: Mapping[str, Any]) -> TinyAutoencoder:
    width = c["encoder_widths"][0]
    for key, part in (("encoder_block_out_channels", "encoder"), ("decoder_block_out_channels", "decoder")):
        check_supported(key, c[f"{part}_widths"], ((width,) * len(c["encoder_depth"]),))
    check_supported("len(num_decoder_blocks)", len(c["decoder_depth"]), (len(c["encoder_depth"]),))
    fields = {key: c[key] for key in ("in_channels", "latent_channels", "encoder_depth", "decoder_depth")}
    return TinyAutoencoder(channels=width, **fields)


def config_from_autoencoder(net: Net, latents: Latents, codes: int = 0) -> dict[str, Any]:
    """The config of the class that computes the same: an AutoencoderTiny, with `codes` a VQModel, else an
    AutoencoderKL. The size of pictures is in no AutoencoderTiny's.

    Raises:
        ValueError: naming a field that the class does not have.
    """
    both = {"in_channels": net.in_channels, "out_channels": net.in_channels, "latent_channels": net.latent_channels}
    if isinstance(net, TinyAutoencoder):
        return _write_tiny(net, both | _beside(TINY, latents))
    table, kind = (VQ, "a VQModel") if codes else (KL, "an AutoencoderKL")
    check_plain(net, kind)
    if net.moments == bool(codes):
        raise ValueError(f"moments={net.moments} is not in {kind}, only {not codes}: not exported")
    values = both | {
        "down": attends(net),
        "up": attends(net)[::-1],
        "widths": tuple(net.widths),
        "depth": net.depth,
        "norm_groups": net.norm_groups,
        "image_size": net.image_size,
        "middle": isinstance(net.middle, SelfAttention),
        **_beside(table, latents),
    }
    return _write_vq(net, codes, values) if codes else _write_kl(net, values)


def _write_tiny(net: TinyAutoencoder, values: dict[str, Any]) -> dict[str, Any]:
    widths = (net.channels,) * len(net.encoder_depth)
    depths = {"encoder_depth": net.encoder_depth, "decoder_depth": net.decoder_depth}
    shift = {"shift_factor": values["shift_factor"] or 0.0}
    written = TINY.write({**values, **depths, **shift, "encoder_widths": widths, "decoder_widths": widths})
    return written | {"block_out_channels": list(widths)}


def _write_kl(net: Autoencoder, values: dict[str, Any]) -> dict[str, Any]:
    if net.spatial_norm or net.latent_dim != net.latent_channels:
        said = f"spatial_norm={net.spatial_norm}, code_channels={net.code_channels}"
        raise ValueError(f"{said} is not in an AutoencoderKL: not exported")
    return KL.write(values | {"quant_convs": net.quant_convs, "post_quant_conv": net.quant_convs})


def _write_vq(net: Autoencoder, codes: int, values: dict[str, Any]) -> dict[str, Any]:
    if not net.quant_convs:
        raise ValueError("quant_convs=False is not in a VQModel: not exported")
    if net.spatial_norm and (net.norm_groups != SPATIAL_GROUPS or net.latent_dim != net.latent_channels):
        raise ValueError(
            f"a VQModel with spatial_norm has norm_groups={SPATIAL_GROUPS} and no code_channels of its own, this one "
            f"{net.norm_groups} and {net.latent_dim}: not exported"
        )
    return VQ.write(values | {"codes": codes, "code_channels": net.code_channels, "spatial_norm": net.spatial_norm})


def _beside(table: Table, latents: Latents) -> dict[str, Any]:
    """Of what a config says of latents, what the class has; what it has not stands here only if it says something."""
    known, default = {field.ours for field in table.fields}, vars(Latents())
    return {key: value for key, value in vars(latents).items() if key in known or value != default[key]}


def attends(net: Autoencoder) -> tuple[bool, ...]:
    """Whether each level does."""
    return tuple(value is not None for value in net.attention) or (False,) * len(net.multipliers)


def check_plain(net: Autoencoder, what: str) -> None:
    """Raises ValueError naming a field unless the net is as all of diffusers' and CompVis' are: one head, epsilon 1e-6,
    residual blocks in the middle, one depth."""
    values: Sequence[Any] = [value for value in (*net.attention, net.middle) if isinstance(value, SelfAttention)]
    if odd := [value for value in values if value != SelfAttention()]:
        raise ValueError(f"attention={odd[0]} is not in {what}, whose pixels attend by one head: not exported")
    if net.middle == "none":
        raise ValueError(f"middle='none' is not in {what}, which has residual blocks there: not exported")
    if net.norm_eps != NORM_EPS:
        raise ValueError(f"norm_eps={net.norm_eps} is not in {what}, only {NORM_EPS}: not exported")
    if net.widths[0] != net.channels:
        raise ValueError(f"multipliers={net.multipliers} do not begin with 1 as in {what}: not exported")
    if not isinstance(net.depth, int):
        raise ValueError(f"depth={net.depth} is not in {what}, where all levels have one: not exported")
