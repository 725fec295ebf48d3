"""Configs of other projects as tables: one line a key says what may stand there, what leaving it out means, and which
of our fields it is. A table reads such a config and writes it.

    PRIOR = Table("PriorTransformer", (Field("num_layers", 20, COUNT, "depth"), Field("dropout", 0.0, only(0.0))))
    PRIOR.read({"num_layers": 3}) == {"depth": 3}
    PRIOR.write({"depth": 3}) == {"_class_name": "PriorTransformer", "num_layers": 3, "dropout": 0.0}
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Convert = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


class Kind(NamedTuple):
    """What may stand at a key, in words and as a check of a JSON value, and what it is here. `to_theirs` is the inverse
    of `to_ours`, which a table checks when it writes."""

    words: str
    accepts: Callable[[Any], bool]
    to_ours: Convert = _same
    to_theirs: Convert = _same


LARGEST = 1e300
"""Beyond it a whole number, which JSON lets be of any length, is no float."""
COUNT = Kind("a whole number from 1 to 2147483647", lambda value: type(value) is int and 0 < value < 2**31)
NUMBER = Kind("a number", lambda value: type(value) in (int, float) and abs(value) < LARGEST, float)
POSITIVE = Kind("a number above 0", lambda value: NUMBER.accepts(value) and value > 0, float)
FLAG = Kind("true or false", lambda value: type(value) is bool)
TEXT = Kind("a string", lambda value: type(value) is str)


def optional(kind: Kind, ours: Any = None) -> Kind:
    """The kind, or null, which is `ours` here."""
    return Kind(
        f"{kind.words} or null",
        lambda value: value is None or kind.accepts(value),
        lambda value: ours if value is None else kind.to_ours(value),
        lambda value: None if value == ours else kind.to_theirs(value),
    )


def several(kind: Kind, count: int | None = None) -> Kind:
    """A list, a tuple here, of so many (None: one or more) of a kind."""

    def accepts(value: Any) -> bool:
        right = isinstance(value, list | tuple) and (len(value) > 0 if count is None else len(value) == count)
        return right and all(map(kind.accepts, value))

    return Kind(
        f"a list of {count or 'one or more'}, each {kind.words}",
        accepts,
        lambda values: tuple(map(kind.to_ours, values)),
        lambda values: list(map(kind.to_theirs, values)),
    )


def choice(names: Mapping[Any, Any]) -> Kind:
    """One of the keys of `names`, which is the value here. Of several keys of a value the first is written."""

    def there(value: Any) -> Any:
        return next((ours for theirs, ours in names.items() if _equal(theirs, value)), None)

    def back(value: Any) -> Any:
        return next((theirs for theirs, ours in names.items() if _equal(ours, value)), REFUSED)

    return Kind(_words(names), lambda value: any(_equal(value, theirs) for theirs in names), there, back)


REFUSED = object()
"""Written for a value that has no counterpart; nothing accepts it."""


def only(*values: Any) -> Kind:
    """One of these values, as it is."""
    return Kind(_words(values), lambda value: any(_equal(value, known) for known in values))


def _words(values: Iterable[Any]) -> str:
    return " or ".join(map(repr, values))


def _equal(value: Any, known: Any) -> bool:
    """Equality that does not take true for 1."""
    return isinstance(value, bool) == isinstance(known, bool) and value == known


def _shortened(text: str, most: int = 200) -> str:
    """An error is a line, and a value may be a list of a thousand numbers."""
    return text if len(text) <= most else f"{text[: most // 4]}... ({len(text)} characters)"


class Field(NamedTuple):
    """A `key` of their config, what leaving it out means, and what our field is called: "" where all values that are
    supported mean the same. What is not `written` stands in configs of old versions only."""

    key: str
    default: Any
    kind: Kind
    ours: str = ""
    written: bool = True


class Table(NamedTuple):
    """The config of the class `name`: its fields, and keys that change nothing here.

    `class_key` is where the config says the name, "" where it does not. Keys that begin with "_" are ignored, others
    refused unless `open`.
    """

    name: str
    fields: tuple[Field, ...]
    ignored: frozenset[str] = frozenset()
    class_key: str = "_class_name"
    open: bool = False

    def read(self, config: Mapping[str, Any], where: str = "config.json", prefix: str = "") -> dict[str, Any]:
        """Our fields by name. `where` the config is, and the `prefix` of its keys there, are for the errors.

        Raises:
            ValueError: naming a key that the class does not have, or a value that is not supported.
        """
        if self.class_key and (found := config.get(self.class_key, self.name)) != self.name:
            raise ValueError(f"{where} is of a {found}, expected a {self.name}")
        known = {field.key for field in self.fields} | self.ignored
        unknown = sorted(key for key in config if key not in known and not key.startswith("_"))
        if unknown and not self.open:
            raise ValueError(f"{where}: a {self.name} has no {prefix + unknown[0]!r}")
        values = {}
        for field in self.fields:
            value = config.get(field.key, field.default)
            if not field.kind.accepts(value):
                said = _shortened(repr(value))
                raise ValueError(f"{where}: {prefix}{field.key}={said} is not supported, only {field.kind.words}")
            if field.ours:
                values[field.ours] = field.kind.to_ours(value)
        return values

    def write(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The config of these fields of ours; of one that is left out, what they take by default.

        Raises:
            ValueError: naming a field, or a value, that the class does not have.
        """
        if unknown := sorted(set(values) - {field.ours for field in self.fields}):
            raise ValueError(f"a {self.name} has no counterpart of {unknown[0]!r}: not exported")
        config: dict[str, Any] = {self.class_key: self.name} if self.class_key else {}
        for field in self.fields:
            if field.written:
                config[field.key] = self._theirs(field, values) if field.ours in values else field.default
        return config

    def _theirs(self, field: Field, values: Mapping[str, Any]) -> Any:
        value = values[field.ours]
        theirs = field.kind.to_theirs(value)
        if not field.kind.accepts(theirs) or field.kind.to_ours(theirs) != value:
            raise ValueError(f"{field.ours}={value!r} is no {field.key} of a {self.name}: not exported")
        return theirs


def check_supported(key: str, value: Any, known: tuple[Any, ...], where: str = "config.json") -> None:
    """Raises ValueError naming the key unless the value is one of those; for what depends on other fields."""
    if not only(*known).accepts(value):
        raise ValueError(f"{where}: {key}={value!r} is not supported, only {_words(known)}")


def read_fields(
    config: Mapping[str, Any],
    name: str,
    defaults: Mapping[str, Any],
    optional: tuple[str, ...] = (),
    supported: Mapping[str, tuple[Any, ...]] | None = None,
) -> dict[str, Any]:
    """All keys of the class `name`: what `config` gives over the defaults, for readers that have no `Table` yet.

    A value has to be of its default's type (None: a number, or several), or None where it is `optional`; one of
    `supported` has to have a value listed there.

    Raises:
        ValueError: naming a key or a value that is not known.
    """
    kinds = {key: only(*values) for key, values in (supported or {}).items()}
    anything = Kind("anything", lambda _: True)
    fields = (Field(key, default, kinds.get(key, anything), key) for key, default in defaults.items())
    values = Table(name, tuple(fields)).read(config)
    for key in set(config) & set(defaults) - set(kinds):
        if not _is_like(values[key], defaults[key]) and not (values[key] is None and key in optional):
            raise ValueError(f"config.json: {key}={values[key]!r} is not of the type that {name} expects")
    return values


def _is_like(value: Any, default: Any) -> bool:
    """Whether a JSON value is of the type of a default; a default of None takes one number, or several."""
    if isinstance(value, list | tuple):
        return (default is None or isinstance(default, tuple)) and len({type(item) for item in value}) == 1
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is (int if default is None else type(default))
