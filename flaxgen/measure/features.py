"""Features of pictures by name: what FID and its kin compare. Numbers from different features are not comparable, so an
extractor's name says which net made them, down to a hash of its weights."""

from collections.abc import Callable
from typing import Any, cast

import jax

from flaxgen.data import unit_range
from flaxgen.family.extractor import Extractor, rgb
from flaxgen.family.family import Family
from flaxgen.family.files import fingerprint
from flaxgen.family.process import choose
from flaxgen.nets.inception import Inception
from flaxgen.train.config import require
from flaxgen.weights.inception import import_inception
from flaxgen.zoo import FAMILIES


def make_extractor(name: str) -> Extractor:
    """`pixels`, `inception:FILE` (the published weights), `clip:MODEL` or `classifier:MODEL` (a run or model).

    Raises:
        ValueError, OSError: if the name is not one of these, or there is no such net.
    """
    kind, _, path = name.partition(":")
    make = choose("features", kind, EXTRACTORS)
    require(bool(path) != (kind == "pixels"), f"features={name!r}: expected {USAGE}")
    return make(path)


def _pixels(path: str) -> Extractor:
    """The pictures themselves, in [-1, 1]."""

    def apply(params, inputs):
        image = inputs["image"]
        return {"features": unit_range(image).reshape(len(image), -1)}

    return Extractor("pixels", {}, apply)


def _inception(path: str) -> Extractor:
    """The 2048 features behind FID, and the 1008 logits without bias behind the Inception Score."""
    net, params = Inception(), import_inception(path)

    def apply(params, inputs):
        outputs = cast(Any, net.apply({"params": params}, rgb(inputs["image"])))
        return {"features": outputs["2048"], "logits": outputs["logits_unbiased"]}

    return Extractor(f"inception:{fingerprint(params)}", jax.device_put(params), apply, has_classes=True)


def _of_family(family: Family) -> Callable[[str], Extractor]:
    extract = family.extract
    assert extract is not None
    return lambda path: extract(family.load(path))


EXTRACTORS: dict[str, Callable[[str], Extractor]] = {
    "pixels": _pixels,
    "inception": _inception,
    **{one.name: _of_family(one) for one in FAMILIES if isinstance(one, Family) and one.extract is not None},
}
USAGE = "pixels, inception:FILE, clip:MODEL or classifier:MODEL"
