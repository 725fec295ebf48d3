"""Autoencoders of other projects, read and written: diffusers' AutoencoderKL, VQModel and AutoencoderTiny, CompVis'
VQGANs and first stages, DALL-E's dVAE, and its encoder in transformers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from flaxgen.data import Data
from flaxgen.family.files import new_directory
from flaxgen.interchange.layout import Layout
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.nets.dalle_vae import DalleVae
from flaxgen.nets.tiny_autoencoder import TinyAutoencoder
from flaxgen.train.config import override, require
from flaxgen.types import Params
from flaxgen.weights import dalle_vae, store, taming
from flaxgen.weights.autoencoder import PIPELINE_FOLDERS, STEM, count_codes, export_autoencoder, import_autoencoder
from flaxgen.weights.autoencoder_config import TABLES, Latents
from flaxgen.zoo.autoencoder import FAMILY, Bottleneck, Codebook, Config, Gaussian, Gumbel, Reconstruction
from flaxgen.zoo.autoencoder.model import Model

SINGLE = "autoencoder.safetensors"
"""What a folder of CompVis' layout holds, where one is written or read."""
PICKLES = (".ckpt",)
ENCODER, DECODER = (f"{part}.safetensors" for part in dalle_vae.PARTS)
KL_WEIGHT = 1e-6
"""Of the KL that latent diffusion's first stages are trained with, by which an imported one goes on."""


def config_for(net: Any, params: Params, latents: Latents = Latents()) -> Config:  # noqa: B008 (immutable)
    """A config of an imported net, whose bottleneck follows from the net and its parameters; fields about training are
    not known and hold defaults, or what such nets are trained by."""
    codes = count_codes(params)
    reconstruction = Reconstruction(loss="absolute")
    if isinstance(net, DalleVae):
        bottleneck, reconstruction = Gumbel(codes=net.codes), Reconstruction(loss="logit_laplace")
    elif codes:
        bottleneck = Codebook(codes=codes, update="gradient", restart=0.0)
    else:
        bottleneck = Gaussian(beta=KL_WEIGHT) if getattr(net, "moments", False) else Bottleneck()
    return Config(
        seed=0,
        steps=1,
        batch_size=1,
        data=Data(source="folder", image_size=net.image_size, channels=net.in_channels),
        net=net,
        latents=latents,
        bottleneck=bottleneck,
        reconstruction=reconstruction,
    )


def _write_imported(target: Path, config: Config, params: Params, overrides: Sequence[str]) -> None:
    """The model directory, with values of the config that are given, such as size=512: weights say of no size."""
    config = override(config, overrides)
    if overrides:
        shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (params, FAMILY.abstract_params(config))]
        require(shapes[0] == shapes[1], f"--set {overrides[0]}: the weights are those of another net")
    FAMILY.write_model(target, config, params, 0)


def parts_of(model: Model) -> Params:
    """The parameters of the net and its codebook, without those of the loss."""
    return {name: model.params[name] for name in ("encoder", "decoder", "codebook") if name in model.params}


def _net_of(model: Model, where: str, *known: type) -> Any:
    """The net; ValueError unless it is one of these, which another project has too."""
    net, names = model.config.net, " or ".join(kind.__name__ for kind in known)
    require(isinstance(net, known), f"a {type(net).__name__} has no counterpart in {where}, only {names}: not exported")
    return net


def _check_bottleneck(model: Model, *known: type[Bottleneck]) -> None:
    """Raises ValueError unless the bottleneck is one of these that other projects have, and as they have it."""
    bottleneck = model.config.bottleneck
    kind, expected = type(bottleneck).__name__, " or ".join(kind.__name__ for kind in known)
    require(type(bottleneck) in known, f"a {kind} bottleneck is not in this layout, only {expected}: not exported")
    require(
        not isinstance(bottleneck, Codebook) or not bottleneck.normalise,
        "bottleneck.normalise=True is in no layout, where codes have any length: not exported",
    )


def _say_unsaid(model: Model, where: str) -> None:
    """Says on stderr what of a model no tensor can say."""
    latents, size = model.config.latents, model.config.net.image_size
    unsaid = {"net.image_size": size} | {
        f"latents.{name}": value for name, value in vars(latents).items() if value != vars(Latents())[name]
    }
    said = " ".join(f"{name}={value}" for name, value in unsaid.items())
    print(f"{said} is in no tensor: whoever reads {where} has to be told", file=sys.stderr)


def _diffusers_place(folder: Path) -> Path | None:
    """The folder itself, or that of a pipeline, where it holds one of the three classes."""
    for place in (folder, *(folder / name for name in PIPELINE_FOLDERS)):
        path = place / "config.json"
        if path.is_file() and store.read_json(path).get("_class_name") in TABLES:
            return place
    return None


def _read_diffusers(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    place = _diffusers_place(folder)
    assert place is not None
    if place != folder:
        print(f"{folder} is a pipeline: taking its autoencoder, {place.name}/, alone", file=sys.stderr)
    net, params, latents = import_autoencoder(place)
    _write_imported(target, config_for(net, params, latents), params, overrides)


def _write_diffusers(model: Model, directory: Path) -> None:
    net = _net_of(model, "diffusers", Autoencoder, TinyAutoencoder)
    _check_bottleneck(model, *((Bottleneck,) if isinstance(net, TinyAutoencoder) else (Gaussian, Codebook)))
    new_directory(directory)
    export_autoencoder(net, parts_of(model), model.config.latents, directory)


def _is_taming(place: Path) -> bool:
    if place.suffix in PICKLES and not place.is_dir():
        return True
    path = _single_file(place)
    try:
        return path.suffix == ".safetensors" and path.is_file() and taming.is_taming(store.read_header(path))
    except ValueError:  # what is damaged is another layout's to name
        return False


def _single_file(place: Path) -> Path:
    return place / SINGLE if place.is_dir() else place


def _read_taming(place: Path, target: Path, overrides: Sequence[str]) -> None:
    require(
        place.suffix not in PICKLES or place.is_dir(),
        f"{place} is a pickle, which is never read: save its 'state_dict' as safetensors first, with torch.load("
        "..., weights_only=True) elsewhere",
    )
    net, params = taming.import_taming(_single_file(place))
    _write_imported(target, config_for(net, params), params, overrides)


def _write_taming(model: Model, directory: Path) -> None:
    net = _net_of(model, "CompVis' code", Autoencoder)
    _check_bottleneck(model, Gaussian, Codebook)
    new_directory(directory)
    taming.export_taming(net, parts_of(model), directory / SINGLE)
    _say_unsaid(model, SINGLE)


def _is_openai(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (ENCODER, DECODER))


def _read_openai(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    net, params = dalle_vae.import_openai(folder)
    _write_imported(target, config_for(net, params), params, overrides)


def _write_openai(model: Model, directory: Path) -> None:
    net = _net_of(model, "DALL-E's code", DalleVae)
    new_directory(directory)
    dalle_vae.export_openai(net, parts_of(model), directory)
    _say_unsaid(model, f"{ENCODER} and {DECODER}")


def _is_flava(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and store.read_json(config).get("model_type") == dalle_vae.FLAVA.name


def _read_flava(folder: Path, target: Path, overrides: Sequence[str]) -> None:
    require(
        (folder / DECODER).is_file(),
        f"{folder} is DALL-E's encoder alone: put {DECODER} beside it, which scripts/convert_openai_dvae.py makes of "
        "OpenAI's decoder.pkl",
    )
    net, params = dalle_vae.import_flava(folder)
    net, decoder = dalle_vae.import_openai_decoder(net, folder / DECODER)
    _write_imported(target, config_for(net, params | decoder), params | decoder, overrides)


def _write_flava(model: Model, directory: Path) -> None:
    net = _net_of(model, "DALL-E's code", DalleVae)
    new_directory(directory)
    dalle_vae.export_flava(net, parts_of(model), directory)
    dalle_vae.export_openai(net, parts_of(model), directory, ("decoder",))


DIFFUSERS = Layout(
    "diffusers",
    f"config.json of one of {', '.join(TABLES)}, itself or in {', '.join(f'{name}/' for name in PIPELINE_FOLDERS)}",
    FAMILY,
    lambda folder: _diffusers_place(folder) is not None,
    _read_diffusers,
    _write_diffusers,
    files=("*.json", f"{STEM}*", *(f"{name}/*" for name in PIPELINE_FOLDERS)),
)
TAMING = Layout(
    "taming",
    f"an autoencoder's state_dict of CompVis, a file .safetensors or {SINGLE}",
    FAMILY,
    _is_taming,
    _read_taming,
    _write_taming,
    files=(SINGLE,),
    marks=(SINGLE,),
)
OPENAI = Layout(
    "openai",
    f"{ENCODER} and {DECODER} of DALL-E's dVAE",
    FAMILY,
    _is_openai,
    _read_openai,
    _write_openai,
    files=(ENCODER, DECODER),
    marks=(ENCODER, DECODER),
)
FLAVA = Layout(
    "transformers",
    f"config.json of a FlavaImageCodebook beside {DECODER}",
    FAMILY,
    _is_flava,
    _read_flava,
    _write_flava,
    files=("*.json", f"{dalle_vae.STEM}*.safetensors", DECODER),
)
