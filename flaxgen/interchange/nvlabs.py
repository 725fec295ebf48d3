"""StyleGAN2s of NVlabs' stylegan2-ada-pytorch: state_dicts saved as safetensors, read and written."""

import sys
from collections.abc import Sequence
from pathlib import Path

from flaxgen.data import Data
from flaxgen.family.files import new_directory
from flaxgen.interchange.layout import Layout
from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.train.config import override, require
from flaxgen.types import Params
from flaxgen.weights import stylegan2
from flaxgen.weights.stylegan2_config import (
    MARKS,
    Shapes,
    discriminator_for,
    discriminator_from_shapes,
    generator_from_shapes,
    kind_of,
    read_shapes,
)
from flaxgen.zoo.gan import FAMILY, Config, Model

GENERATOR, DISCRIMINATOR = "generator.safetensors", "discriminator.safetensors"
"""What a folder holds: the averaged generator, and, if it is there, the discriminator that it was trained against."""
SUFFIXES = (".safetensors", ".pkl", ".pt")
UNSEEN = ("clamp", "dtype", "dtype_blocks")
"""Fields of a generator that are in no tensor."""


def find_generator(place: Path) -> Path:
    """The state_dict of a generator, a file or the folder of one, there or not."""
    return place if place.suffix in SUFFIXES and not place.is_dir() else place / GENERATOR


def import_state_dict(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, Params]:
    """The generator of a state_dict, and a config whose fields about training hold defaults.

    The nets are read from names and shapes; `overrides`, such as generator.clamp=0, say what is in neither. Of a
    discriminator beside the generator only the config is kept, after its tensors have been checked.

    Raises:
        ValueError: if it is no such state_dict, or naming the first tensor that is not that of these nets.
        FileNotFoundError: if there is no such file.
    """
    require(path.suffix == ".safetensors", f"{path} is a pickle, which is never read: save the state_dict() of its "
            "G_ema as safetensors first")  # fmt: skip
    generator = generator_from_shapes(_shapes_of("generator", path), str(path))
    beside, discriminator = path.with_name(DISCRIMINATOR), discriminator_for(generator)
    judged = path.name == GENERATOR and beside.is_file()
    if judged:
        discriminator = discriminator_from_shapes(_shapes_of("discriminator", beside), str(beside))
    data = Data(source="folder", image_size=generator.image_size, channels=generator.channels)
    config = Config(seed=0, steps=1, batch_size=32, data=data, generator=generator, discriminator=discriminator)
    config = override(config, overrides)
    if isinstance(config.discriminator, Discriminator) and judged:
        stylegan2.import_discriminator(config.discriminator, beside)
    assert isinstance(config.generator, Generator)
    return config, stylegan2.import_generator(config.generator, path)


def _shapes_of(kind: str, path: Path) -> Shapes:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    shapes = read_shapes(path)
    found = kind_of(shapes)
    others = f"is of a {found}" if found else f"has no tensor {MARKS[kind]!r}"
    require(found == kind, f"{path} {others}: expected the state_dict of NVlabs' StyleGAN2 {kind}")
    return shapes


def export_state_dict(model: Model, directory: Path) -> None:
    """Writes what NVlabs' `G_ema.load_state_dict` takes. What no tensor can say is said on stderr.

    Raises:
        ValueError: if the generator is no StyleGAN2.
    """
    net = model.config.generator
    if not isinstance(net, Generator):
        kind = type(net).__module__.rpartition(".")[2]
        raise ValueError(f"a generator of {kind} has no counterpart in NVlabs' code: only StyleGAN2 has")
    stylegan2.export_generator(net, dict(model.params), directory / GENERATOR)
    differing = [field for field in UNSEEN if getattr(net, field) != getattr(Generator, field)]
    if differing:
        said = " ".join(f"generator.{field}={getattr(net, field)}" for field in differing)
        print(f"{said} is in no tensor: whoever reads {GENERATOR} has to be told", file=sys.stderr)


def _matches(place: Path) -> bool:
    return (place.suffix in SUFFIXES and not place.is_dir()) or find_generator(place).is_file()


def _read(place: Path, target: Path, overrides: Sequence[str]) -> None:
    config, params = import_state_dict(find_generator(place), overrides)
    FAMILY.write_model(target, config, params, 0)


def _write(model: Model, directory: Path) -> None:
    new_directory(directory)
    export_state_dict(model, directory)


LAYOUT = Layout(
    "nvlabs",
    f"a StyleGAN2's state_dict, a file .safetensors or {GENERATOR}",
    FAMILY,
    _matches,
    _read,
    _write,
    files=(GENERATOR, DISCRIMINATOR),
    marks=(GENERATOR, DISCRIMINATOR),
)
