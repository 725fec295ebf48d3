"""Whose codes a prior reads, and which of an autoencoder's maps."""

from typing import Any

from flaxgen.family import coded
from flaxgen.family.companions import load_companion
from flaxgen.family.levels import BOTTOM, TOP
from flaxgen.zoo.codes.config import Config, condition_of


def load_autoencoder(family: Any, config: Config) -> Any:
    """The autoencoder, of this family, whose codes are read.

    Raises:
        ValueError: if it is not there, or its maps are not those that the net reads.
    """
    found = load_companion(family, config.autoencoder)
    check_maps(config, found)
    return found


def check_maps(config: Config, autoencoder: Any) -> None:
    """Raises ValueError unless the net reads codes of the autoencoder, and is given its top where it draws the
    bottom."""
    net, given = config.net, condition_of(config)
    coded.check_fits(net, (net.height, net.width), autoencoder, level=config.level)
    if given is not None:
        coded.check_fits(given, (given.height, given.width), autoencoder, level=TOP, name="net.condition")


def split_codes(config: Config, codes: Any) -> tuple[Any, Any]:
    """The map that is drawn, of what an autoencoder says of pictures, and the one that is given, or None."""
    if not config.level:
        return codes, None
    return codes[config.level], codes[TOP] if config.level == BOTTOM else None
