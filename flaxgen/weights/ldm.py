"""Single .safetensors files of Stable Diffusion under the names of CompVis' and Stability's code [Rombach22; Podell23],
the UNet, the autoencoder and the text towers in one <-> nets and their parameters.

Of which kind a file is, and the fields of its nets, follow from names and shapes. Three things are in no tensor: heads
(8 a level in SD 1, 64 channels wide elsewhere and at least one), the size of pictures, and whether an SD 2 predicts
noise or v.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.clip import CLIP
from flaxgen.nets.unet import UNet
from flaxgen.types import Params
from flaxgen.weights import autoencoder, clip, ldm_unet, store, taming, unet2d
from flaxgen.weights.autoencoder import Imported
from flaxgen.weights.autoencoder_config import Latents, config_from_autoencoder
from flaxgen.weights.clip_config import config_from_clip
from flaxgen.weights.convert import export_params, import_params
from flaxgen.weights.header import Entry, check_file
from flaxgen.weights.ldm_text import OPEN_CLIP, PROJECTION, TRANSFORMERS, Text, clip_from_shapes, unused
from flaxgen.weights.ldm_unet import Shapes, check_same
from flaxgen.weights.rules import Rule, under

UNET, FIRST_STAGE = "model.diffusion_model", "first_stage_model"
TEXTS = ("clip", "clip_2")
"""What the text towers of a file are called here, in their order."""
CONV_IN = f"{UNET}.input_blocks.0.0.weight"
CONTEXT = f"{UNET}.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
VECTOR = f"{UNET}.label_emb.0.0.weight"
MARKS = (CONV_IN, CONTEXT, f"{FIRST_STAGE}.decoder.conv_in.weight")
SCHEDULE = frozenset(
    """
    betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod
    log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance
    posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 lvlb_weights logvar scale_factor
    denoiser.sigmas
    """.split()  # noqa: SIM905
)
"""Tables of the noise schedule, and the number that latents are multiplied by, which is their kind's."""
EMA = "model_ema."
"""Averaged weights of a run's checkpoint, beside those that it goes on with."""


class Kind(NamedTuple):
    """A kind of model, as its tensors show it: the text towers, the UNet's input channels, and how many numbers the
    vector has beside a text's embedding, each as 256 waves (0: there is no vector). The rest is in no tensor.

    `heads` are those of every level of the UNet; None is one for every 64 channels. `prediction` is what the UNet was
    trained to predict; None where files of the kind differ, and whoever reads one has to say.
    """

    name: str
    texts: tuple[Text, ...]
    channels: int = 4
    numbers: int = 0
    heads: int | None = None
    image_size: int = 512
    prediction: str | None = "eps"
    latents: Latents = Latents(scaling_factor=0.18215, force_upcast=True)


SD1 = Kind("sd1", (Text("cond_stage_model.transformer", TRANSFORMERS),), heads=8)
SD2 = Kind("sd2", (Text("cond_stage_model.model", OPEN_CLIP),), image_size=768, prediction=None)
SDXL = Kind(
    "sdxl",
    (
        Text("conditioner.embedders.0.transformer", TRANSFORMERS),
        Text("conditioner.embedders.1.model", OPEN_CLIP, projected=True),
    ),
    numbers=6,
    image_size=1024,
    latents=Latents(scaling_factor=0.13025, force_upcast=True),
)
SD2_INPAINTING = SD2._replace(name="sd2-inpainting", channels=9, image_size=512, prediction="eps")
REFINER = SDXL._replace(
    name="sdxl-refiner", texts=(Text("conditioner.embedders.0.model", OPEN_CLIP, projected=True),), numbers=5
)
KINDS = {
    kind.name: kind
    for kind in (SD1, SD1._replace(name="sd1-inpainting", channels=9), SD2, SD2_INPAINTING, SDXL, REFINER)
}


class Single(NamedTuple):
    """What a single file holds, parameters as numpy arrays: the UNet, the autoencoder and what is known of its latents,
    and the text towers in the order in which the UNet reads them."""

    kind: Kind
    unet: UNet
    unet_params: dict[str, Any]
    autoencoder: Imported
    texts: tuple[tuple[CLIP, dict[str, Any]], ...]


class _Nets(NamedTuple):
    kind: Kind
    unet: UNet
    autoencoder: Autoencoder
    texts: tuple[CLIP, ...]


def kind_of(header: Mapping[str, Entry]) -> Kind | None:
    """The kind of a file whose tensors `store.read_header` gives; None if it is none of KINDS."""
    return _kind_of({name: entry.shape for name, entry in header.items()})


def _kind_of(shapes: Shapes) -> Kind | None:
    return next((kind for kind in KINDS.values() if _is_of(kind, shapes)), None)


def _is_of(kind: Kind, shapes: Shapes) -> bool:
    """Whether the tensors that mark the kind are there, and the UNet reads as many channels as its towers give."""

    def width(name: str) -> int:
        return shapes[name][1] if len(shapes.get(name, ())) > 1 else 0

    widths = [width(f"{text.place}.{text.names.tokens}") for text in kind.texts]
    vector = 256 * kind.numbers and 256 * kind.numbers + width(f"{kind.texts[-1].place}.{PROJECTION}")
    return (
        all(widths)
        and all(mark in shapes for mark in MARKS)
        and (width(CONV_IN), width(CONTEXT), width(VECTOR)) == (kind.channels, sum(widths), vector)
    )


def read_single(path: str | Path, keep_dtype: bool = False) -> Single:
    """What a file holds, tensor by tensor; parameters are float32, or with `keep_dtype` as they are.

    Tables of the noise schedule, averaged weights, position ids and CLIP's logit scale are left out, and so is the last
    block of SD 2's text tower, which nothing reads.

    Raises:
        ValueError: if the file is of no kind in KINDS, or naming a tensor that is missing, extra, wrongly shaped or not
            finite.
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    check_file(path)
    shapes = {name: entry.shape for name, entry in store.read_header(path).items()}
    kind = _known(shapes, str(path))
    dropped = _dropped(kind, shapes)
    nets = _nets(kind, {name: shape for name, shape in shapes.items() if name not in dropped}, str(path))
    tensors = store.open_file(path).without(dropped)
    params = import_params(_rules(nets), tensors, _abstract(nets), str(path), keep_dtype)
    texts = tuple((net, params[name]) for name, net in zip(TEXTS, nets.texts, strict=False))
    first_stage = Imported(nets.autoencoder, params["autoencoder"], kind.latents)
    return Single(kind, nets.unet, params["unet"], first_stage, texts)


def _known(shapes: Shapes, where: str) -> Kind:
    if (kind := _kind_of(shapes)) is None:
        places = dict.fromkeys(f"{text.place}.{text.names.tokens}" for kind in KINDS.values() for text in kind.texts)
        raise ValueError(
            f"{where} is no single file of {', '.join(KINDS)}: looked for {', '.join(MARKS)}, "
            f"text towers at {', '.join(places)}, and 4 or 9 input channels, tokens and a vector of these towers"
        )
    return kind


def _dropped(kind: Kind, shapes: Shapes) -> set[str]:
    """The tensors of a file that are no part of the model."""
    beginnings = (EMA, *(beginning for text in kind.texts for beginning in unused(text, shapes)))
    return {name for name in shapes if name in SCHEDULE or name.startswith(beginnings)}


def _nets(kind: Kind, shapes: Shapes, where: str) -> _Nets:
    """The nets whose tensors have these shapes."""

    def inside(place: str) -> dict[str, tuple[int, ...]]:
        return {name.removeprefix(f"{place}."): shapes[name] for name in shapes if name.startswith(f"{place}.")}

    first_stage = taming.autoencoder_from_shapes(inside(FIRST_STAGE), f"{where}: {FIRST_STAGE}", kind.image_size)
    size = kind.image_size // first_stage.factor
    unet = ldm_unet.unet_from_shapes(inside(UNET), f"{where}: {UNET}", size, kind.heads)
    return _Nets(kind, unet, first_stage, tuple(clip_from_shapes(text, shapes, where) for text in kind.texts))


def _rules(nets: _Nets) -> tuple[Rule, ...]:
    """One table for all parts."""
    towers = zip(nets.kind.texts, TEXTS, strict=False)
    return (
        *under([(UNET, "unet")], ldm_unet.rules_for(nets.unet)),
        *under([(FIRST_STAGE, "autoencoder")], taming.rules_for(nets.autoencoder)),
        *(rule for text, name in towers for rule in under([(text.place, name)], text.names.rules)),
    )


def _abstract(nets: _Nets) -> dict[str, Params]:
    parts = {"unet": unet2d.abstract_params(nets.unet), "autoencoder": autoencoder.abstract_params(nets.autoencoder)}
    return parts | {name: clip.abstract_params(net) for name, net in zip(TEXTS, nets.texts, strict=False)}


def write_single(path: str | Path, single: Single) -> None:
    """Writes what `read_single` reads; its inverse, bit for bit, but for tensors that it leaves out.

    Raises:
        ValueError: naming a field that no file of the kind has, or that its readers would take to be another, or a
            tensor that is not the net's.
    """
    kind, net = single.kind, single.autoencoder.net
    if not isinstance(net, Autoencoder):
        raise ValueError(f"a {type(net).__name__} has no counterpart in this layout, only an Autoencoder: not exported")
    nets = _Nets(kind, single.unet, net, tuple(net for net, _ in single.texts))
    params = {"unet": single.unet_params, "autoencoder": single.autoencoder.params}
    params |= {name: tower for name, (_, tower) in zip(TEXTS, single.texts, strict=False)}
    tensors = export_params(_rules(nets), params, _abstract(nets))
    shapes = {name: tensors[name].shape for name in tensors}
    if (found := _known(shapes, "the model to export")) != kind:
        raise ValueError(f"the model to export has the tensors of kind {found.name!r}, not of {kind.name!r}")
    _check(nets, single.autoencoder.latents, _nets(kind, shapes, "the model to export"))
    store.write_file(Path(path), tensors)


def _check(nets: _Nets, latents: Latents, found: _Nets) -> None:
    """Raises ValueError unless the nets are those that a reader takes the tensors for."""
    ldm_unet.check_unet(nets.unet, found.unet)
    first_stages = (
        config_from_autoencoder(nets.autoencoder, latents),
        config_from_autoencoder(found.autoencoder, nets.kind.latents),
    )
    check_same(*first_stages, ("sample_size", "force_upcast"))
    for net, again in zip(nets.texts, found.texts, strict=True):
        check_same(config_from_clip(net), config_from_clip(again), ())
