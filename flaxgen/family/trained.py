"""A trained model with what can be asked of it."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from flaxgen import parallel
from flaxgen.family import files
from flaxgen.family import request as requests
from flaxgen.family.pictures import Pictures, read_about
from flaxgen.family.request import Request
from flaxgen.family.unread import in_memory
from flaxgen.train.config import require
from flaxgen.types import Params

if TYPE_CHECKING:
    from flaxgen.family.family import Family

Progress = Callable[[str], None]
Files = Mapping[str, bytes]
"""What a model is made of beside config and weights, by file name."""


class Handler(NamedTuple):
    """How a model answers a kind of request: `draw(model, request, progress)` draws, after `check(config, request)`
    found nothing that such a model cannot do; `stages(request)` is how often `progress` is called, at most, and
    `settings(model, request)` the values used where a request leaves them open."""

    draw: Callable[[Any, Any, Progress], Pictures]
    check: Callable[[Any, Any], None] = lambda config, request: None
    stages: Callable[[Any], int] = lambda request: 1
    settings: Callable[[Any, Any], Mapping[str, Any]] = lambda model, request: {}


class Answering:
    """What has `requests`: each is a method, `model.draw(...)`, and `model.perform(Draw(...))`."""

    requests: Mapping[type[Request], Handler]
    kind: str
    name: str
    step: int
    fingerprint: str

    def perform(self, request: Request, progress: Progress = lambda stage: None) -> Pictures:
        """The pictures that a request asks for, which know how they were made.

        Raises:
            ValueError: if this model cannot do that.
        """
        handler = self.handler(type(request))
        handler.check(getattr(self, "config", self), request)
        drawn = handler.draw(self, request, progress)
        return drawn.drawn_by(request, self.settings(request), self)

    def again(self, path: str | Path) -> Pictures:
        """What is in a file that these weights drew, drawn once more: the whole sheet, or the one picture of it.

        Raises:
            ValueError, OSError: if the file does not say how it was made, or other weights drew it.
        """
        about = read_about(Path(path))
        require(
            about.get("weights") == self.fingerprint,
            f"{path} was drawn by the weights {about.get('weights')} ({about.get('model')}), these are "
            f"{self.fingerprint}: load that model",
        )
        verb = about["request"].get("verb")
        require(verb in self.verbs, f"{path} is of {verb!r}: a {self.kind} has {', '.join(self.verbs) or 'nothing'}")
        drawn = self.perform(requests.from_json(self.verbs[verb], about["request"]))
        return drawn if about.get("picture") is None else drawn[about["picture"]]

    def handler(self, kind: type[Request]) -> Handler:
        """How it answers a kind of request.

        Raises:
            ValueError: if it does not.
        """
        if kind not in self.requests:
            raise ValueError(f"a {self.kind} has no {kind.verb}: expected {', '.join(self.verbs) or 'nothing'}")
        return self.requests[kind]

    def unseen_words(self, request: Request) -> tuple[str, ...]:
        """The words of a request that the model has never seen in training, as far as is known."""
        return ()

    def settings(self, request: Request) -> dict[str, Any]:
        """The values that are used where a request leaves them open."""
        return dict(self.handler(type(request)).settings(self, request))

    @property
    def verbs(self) -> dict[str, type[Request]]:
        """What can be asked of it, by name."""
        return {kind.verb: kind for kind in self.requests}

    def __getattr__(self, name: str) -> Callable[..., Pictures]:
        kind = {} if name.startswith("_") else self.verbs
        if name not in kind:
            known = ", ".join(kind)
            raise AttributeError(f"a {self.kind} model has no {name!r}" + (f": it has {known}" if known else ""))
        return method_of(self, kind[name])

    def __dir__(self):
        return [*super().__dir__(), *self.verbs]


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Trained(Answering):
    """What `load` gives: a config, its parameters, which may be unread, the step they are of, the devices to run on,
    the small files that belong to it, its family, and the `name` it was loaded by."""

    config: Any
    params: Params
    step: int
    plan: parallel.Plan
    files: Files = dataclasses.field(default_factory=dict)
    family: "Family" = None  # pyright: ignore[reportAssignmentType]
    name: str = ""

    @property
    def requests(self) -> Mapping[type[Request], Handler]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What such a model can be asked."""
        return self.family.requests

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What its family is called."""
        return self.family.name

    @property
    def data(self) -> Any:
        """What it was trained on."""
        return self.config.data

    @property
    def weights(self) -> Params:
        """The parameters in memory; where they are unread, read for this once."""
        return in_memory(self.params)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells these weights from others."""
        return files.fingerprint(self.weights)

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.weights))
        fields = ", ".join(f"{f} {tuple(s.shape[1:])}" for f, s in self.family.batch_spec(self.config).items())
        lines = [
            f"{self.kind} model at step {self.step:,}, {count:,} parameters",
            f"  net    {type(self.config.net).__name__}",
            f"  reads  {fields}",
            f"  runs   on {self.plan.devices} {jax.default_backend()} device(s), {self.plan.name}",
        ]
        answered = {verb: kind for verb, kind in self.verbs.items() if not hasattr(type(self), verb)}
        return "\n".join([*lines, *describe_verbs(answered)])


def describe_verbs(verbs: Mapping[str, type[Request]]) -> list[str]:
    """A line for each method of a model."""
    return [f"  .{verb}(...)  {inspect.getdoc(kind).splitlines()[0]}" for verb, kind in verbs.items()]  # pyright: ignore


def method_of(model: Any, kind: type[Request]) -> Callable[..., Pictures]:
    """A function of the request's fields, with a signature and a help of its own."""

    def method(*arguments, **keywords):
        bound = signature.bind(*arguments, **keywords)
        request = requests.make(kind, bound.arguments)
        bar = Bar(model.requests[kind].stages(request))
        try:
            return model.perform(request, bar)
        finally:
            bar.close()

    signature = _signature(kind)
    method.__name__ = method.__qualname__ = kind.verb
    method.__doc__ = f"{inspect.getdoc(kind)}\n\n{_help(kind)}\n"
    vars(method)["__signature__"] = signature
    return method


def _signature(kind: type[Request]) -> inspect.Signature:
    parameters = []
    for name, spec in requests.specs(kind).items():
        default = requests.default_of(kind, name)
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD if spec.is_positional else inspect.Parameter.KEYWORD_ONLY
        given = inspect.Parameter.empty if default is requests.MISSING else default
        parameters.append(inspect.Parameter(name, place, default=given, annotation=requests.annotation(kind, name)))
    return inspect.Signature(parameters, return_annotation=Pictures)


def _help(kind: type[Request]) -> str:
    """A line for each field: what it is, its range and its default."""
    lines = ["Args:"]
    for name, spec in requests.specs(kind).items():
        default = requests.default_of(kind, name)
        said = spec.default_text or ("" if default is requests.MISSING else repr(default))
        bounds = ", ".join(spec.choices) or (requests.describe_range(spec) if spec.least is not None else "")
        lines.append(f"    {name}: {spec.help}" + "".join(f" ({part})" for part in (bounds, said) if part))
    return "\n".join(lines)


class Bar:
    """A progress bar over the stages of a request, where someone looks at it; called with the name of each."""

    def __init__(self, stages: int):
        self._stages, self._bar = stages, None

    def __call__(self, stage: str) -> None:
        from tqdm.auto import tqdm

        if self._bar is None:
            self._bar = tqdm(total=self._stages, unit="stage", leave=False, disable=None)
        else:
            self._bar.update()
        self._bar.set_description(stage)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
