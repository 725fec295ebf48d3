"""Programs that were traced once and are kept: a second process reads StableHLO instead of tracing the net again.

JAX's own cache keeps what the compiler made of a program, but has to trace the program to find it, which takes longer
than the drawing. A kept program is found by what it follows from: the caller's key, the shapes of its arguments, the
versions and flaxgen's own code. Whatever goes wrong, the function is traced as if nothing were kept.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from importlib import metadata
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import PyTree

from flaxgen import bounded_json, cache

KNOWN = ("flaxgen", "flax", "jax", "jaxlib", "numpy", "ml_dtypes", "builtins")
"""Packages whose versions or code are part of every name; what a key takes from others may change unseen."""
SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
"""Of JAX, those that change what is traced."""
Key = tuple[Any, ...]
Function = Callable[[Any, Any], Any]


def kept(fn: Function, key: Key | None, options: dict[str, str | bool] | None) -> Function:
    """`jax.jit(fn)` for one device, whose traced programs are kept while `cache.current()`.

    `key` has to name everything that `fn` follows from beside its arguments and flaxgen's code, in plain values,
    configs and nets; without one nothing is kept.
    """
    jitted = jax.jit(fn, compiler_options=options)
    if key is None or not _known(inspect.unwrap(fn)):
        return jitted
    programs: dict[Any, Callable | None] = {}

    def run(params, inputs):
        leaves, tree = jax.tree.flatten((params, inputs))
        if cache.current() is None or any(map(_is_spread, leaves)):
            return jitted(params, inputs)
        avals = [*map(jax.typeof, leaves)]
        signature = (tree, *_settings(), *avals)
        if signature not in programs:
            name = _name("program", key, [str(tree), *map(_argument, avals)])
            programs[signature] = None if name is None else _program(fn, leaves, tree, name, options)
        program = programs[signature]
        return jitted(params, inputs) if program is None else program(*leaves)

    return run


def _is_spread(leaf: Any) -> bool:
    """Whether an argument lies on several devices, as in the previews of a run on a mesh."""
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def _settings() -> list[str]:
    return [str(getattr(jax.config, name, None)) for name in SETTINGS]


def _argument(aval: Any) -> str:
    return f"{aval.shape} {aval.dtype} {aval.weak_type}"


def _program(fn: Function, leaves: list, tree: Any, name: str, options: dict[str, str | bool] | None):
    """The program of that name, as a function of the leaves of its arguments, traced now if it was not kept; None where
    it cannot be."""
    content = cache.read(name)
    if content is None:
        content = _export(lambda *leaves: fn(*jax.tree.unflatten(tree, leaves)), leaves)
        cache.write(name, content)
    if not content:
        return None
    try:
        program = jax.jit(export.deserialize(bytearray(content)).call, compiler_options=options)
        program.lower(*leaves)
    except Exception:  # of another build of JAX under the same version, say; nothing narrower is documented
        return None
    return program


def _export(flat: Callable, leaves: list) -> bytes:
    """The traced program as bytes; none where JAX has no lasting form for an operation or a type in it."""
    try:
        return bytes(export.export(jax.jit(flat))(*leaves).serialize())
    except (ValueError, NotImplementedError, ImportError):
        return b""


def shapes(init: Callable[[Any], PyTree]) -> PyTree:
    """`jax.eval_shape(init, key)` of parameters in nested dicts, kept in this process and on disk where `init` is a
    function of flaxgen, or a partial of one."""
    try:
        known = json.dumps([describe(init), _settings()])
    except TypeError:
        return jax.eval_shape(lambda: init(jax.random.key(0)))
    if known not in _shapes:
        _shapes[known] = _shapes_on_disk(init)
    return jax.tree.map(lambda spec: spec, _shapes[known])  # the caller's own dicts


_shapes: dict[str, PyTree] = {}


def _shapes_on_disk(init: Callable[[Any], PyTree]) -> PyTree:
    name = _name("shapes", (init,), [])
    content = None if name is None else cache.read(name)
    if content is not None:
        return jax.tree.map(lambda spec: jax.ShapeDtypeStruct(*spec), bounded_json.loads(content), is_leaf=_is_spec)
    found = jax.eval_shape(lambda: init(jax.random.key(0)))
    if name is not None and _is_nested(found):
        specs = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), found)
        cache.write(name, json.dumps(specs).encode())
    return found


def _is_spec(value: Any) -> bool:
    return isinstance(value, list)


def _is_nested(tree: Any) -> bool:
    """Whether a tree is one of dicts alone, which JSON gives back."""
    if isinstance(tree, dict):
        return all(isinstance(name, str) and _is_nested(value) for name, value in tree.items())
    return isinstance(tree, jax.ShapeDtypeStruct) and not jnp.issubdtype(tree.dtype, jax.dtypes.extended)


def _name(kind: str, key: Key, arguments: list[str]) -> str | None:
    """The file name of what follows from all this; None where nothing is kept, or the key has what cannot be named."""
    current = cache.current()
    if current is None:
        return None
    try:
        named = describe(key)
    except TypeError:
        return None
    device = jax.local_devices()[0]
    around = {
        "versions": {package: metadata.version(package) for package in ("jax", "jaxlib", "flax", "numpy")},
        "device": [device.platform, device.device_kind],
        "settings": _settings(),
        "source": current.source,
    }
    text = json.dumps([kind, named, arguments, around], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()}"


def describe(value: Any) -> Any:
    """JSON that tells a value from all others of its kind: plain values, containers, dataclasses (configs, Linen
    modules), types, functions of a module, and partials of them.

    Raises:
        TypeError: for anything else, and what is defined outside of KNOWN.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): describe(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_title(type(value)), *map(describe, value)]
    if isinstance(value, functools.partial):
        return ["partial", describe(value.func), describe(value.args), describe(value.keywords)]
    if isinstance(value, np.dtype):
        return ["dtype", value.name]
    if isinstance(value, type | FunctionType):
        return _title(value)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in ("parent", "name")]
        return [_title(type(value)), {name: describe(getattr(value, name)) for name in fields}]
    raise TypeError(f"a {type(value).__name__} has no name that lasts")


def _title(value: Any) -> str:
    """The dotted name of a type or function.

    Raises:
        TypeError: if it is a closure, or not of a package in KNOWN.
    """
    if "<" in value.__qualname__ or not _known(value):
        raise TypeError(f"{value.__qualname__} of {value.__module__} has no name that lasts")
    return f"{value.__module__}.{value.__qualname__}"


def _known(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in KNOWN
