"""What a family of models declares, and what follows from the declaration: runs, files, loading."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flaxgen import data as flaxgen_data
from flaxgen import parallel, programs
from flaxgen.family import files
from flaxgen.family.extractor import Extractor
from flaxgen.family.matching import open_matching
from flaxgen.family.request import Request
from flaxgen.family.trained import Files, Handler, Trained
from flaxgen.train import config as configs
from flaxgen.train import optim, run, state
from flaxgen.train.config import require
from flaxgen.types import Experiment, Held, Loss, Params, PRNGKey, Source

Training = tuple[Callable, Callable]
NO_FILES: Files = {}
MAX_CLASSES = 2**24
PREVIEWED = 16
"""Samples that a preview shows, where a family does not say otherwise."""
FREE = run.FREE | {f"data.{name}" for name in flaxgen_data.FREE}
"""What of every config may change between two commands of one run."""


def _open_source(family: "Family", config: Any, files: Files) -> Source:
    """The examples of the config's data, if they have the fields and shapes of a batch."""
    shapes = {name: spec.shape[1:] for name, spec in family.batch_spec(config).items()}
    return open_matching(config.data, shapes, family.classes(config))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A family of models, all that is known of it.

    `config` is a frozen dataclass that inherits from `train.run.Run`; it has a `net`, or a property of that name.
    `init_params(config, key)` makes fresh parameters, `batch_spec(config)` says the shapes and dtypes of a batch, and
    `make_loss(config, files)` what a `GradientRun` minimises. A run of another kind has `make_training(config, files)`
    instead, which gives its `init(key)` and `make_step(axis_name)`; a family with both has None of it for configs that
    follow the gradient of the loss. Without files both need be good for shapes only.
    `requests` are what its models can be asked; `instead` says what to do with a model that draws nothing.

    What a run keeps beside parameters, statistics and frozen weights, is made by `init_held(config, key, params)`;
    `follow(config, statistics, seen)` moves the statistics once a step, and `after_update(config, params, held)` brings
    parameters to where they may be, or where the statistics put them.

    `prepare(config, found)` makes the small `files` that a new run needs, or takes those of an older one.
    `augment(config, files)` is what the loader does to every example it reads, by default what the data say.
    `classes` is how many classes of the data the net knows, 0 for none; `check` refuses a config whose parts do not fit
    together; `free` are fields that may change between two commands of a run; `preview(model, key)`
    draws one picture of a run, by default its first samples.
    `companions` are the families of models that its own work with, by the field of the config that says where they lie.
    `extract(model)` are its features of pictures. `parameters(config)` are those that `info` counts, where they are not
    those of a model. In a config.json the config is of type `type_name`, and nested types are called as their classes,
    or as in `type_names`.
    """

    name: str
    config: type
    init_params: Callable[[Any, PRNGKey], Params]
    batch_spec: Callable[[Any], dict[str, jax.ShapeDtypeStruct]]
    make_loss: Callable[[Any, Files], Loss] | None = None
    make_training: Callable[[Any, Files], Training | None] | None = None
    init_held: Callable[[Any, PRNGKey, Params], Held] | None = None
    follow: Callable[[Any, Any, Any], Any] | None = None
    after_update: Callable[[Any, Params, Held], Params] | None = None
    requests: Mapping[type[Request], Handler] = dataclasses.field(default_factory=dict)
    model: type[Trained] = Trained
    instead: str = "draws nothing"
    type_name: str = ""
    type_names: Mapping[str, type] = dataclasses.field(default_factory=dict)
    files: tuple[str, ...] = ()
    companions: Mapping[str, "Family"] = dataclasses.field(default_factory=dict)
    prepare: Callable[[Any, Files], Files] = lambda config, found: found
    open_source: Callable[["Family", Any, Files], Source] = _open_source
    augment: Callable[[Any, Files], flaxgen_data.Transform | None] = lambda config, files: (
        flaxgen_data.random_transform(config.data)
    )
    classes: Callable[[Any], int] = lambda config: 0
    check: Callable[[Any], None] = lambda config: None
    free: frozenset[str] = frozenset()
    preview: Callable[[Any, PRNGKey], np.ndarray] | None = None
    parameters: Callable[[Any], Params] | None = None
    extract: Callable[[Any], Extractor] | None = None
    is_trainable: Callable[[Any], bool] = lambda config: True

    @functools.cached_property
    def types(self) -> dict[str, type]:
        """All that may appear in a config.json of the family, by name: what its config is made of."""
        named = {kind: name for name, kind in self.type_names.items()}
        nested = {named.get(kind, kind.__name__): kind for kind in configs.types_in(self.config)}
        return {self.type_name or self.name.capitalize(): self.config, **nested}

    def training(self, config: Any, found: Files = NO_FILES) -> Training:
        """`init(key)` and `make_step(axis_name)` of a run.

        Raises:
            ValueError: if parts of the config do not fit together, or such a model is imported only.
        """
        require(self.is_trainable(config), f"a {self.name} of this kind is imported, and not trained here")
        own = None if self.make_training is None else self.make_training(config, found)
        if own is not None:
            return own
        assert self.make_loss is not None, f"{self.name} has neither make_loss nor make_training"
        return state.make_training(
            functools.partial(self.init_params, config),
            self.make_loss(config, found),
            optim.make_optimizer(config.optimizer, config.steps),
            ema_decay=optim.make_ema_decay(config.ema),
            accumulate=config.accumulate,
            init_held=None if self.init_held is None else functools.partial(self.init_held, config),
            follow=None if self.follow is None else functools.partial(self.follow, config),
            after_update=None if self.after_update is None else functools.partial(self.after_update, config),
        )

    def encode(self, config: Any) -> dict[str, Any]:
        """The config as JSON values."""
        return configs.encode(config, self.types)

    def decode(self, data: Any) -> Any:
        """The inverse of `encode`."""
        return configs.decode(data, self.types)

    def reads(self, directory: Path) -> bool:
        """Whether this is a run or model directory of the family."""
        return files.type_in(directory) == next(iter(self.types))

    def read_config(self, directory: Path) -> tuple[Any, int]:
        """The config in a run or model directory, and the step its weights are of (0 for a run).

        Raises:
            ValueError: if there is none, or it is another family's.
        """
        return files.read_config(directory, self.types, self.config)

    def load(self, directory: str | Path, plan: parallel.Plan | None = None, sequential: bool = False) -> Any:
        """The model in a run directory (the average of its newest good checkpoint) or a model directory. The weights of
        a `sequential` one stay in its file, and are read whenever it draws, as a part of a model does.

        Raises:
            ValueError: if there is none, or a tensor is missing, unknown or of the wrong shape.
        """
        directory = Path(directory)
        config, step = self.read_config(directory)
        init = functools.partial(self.init_params, config)
        if sequential:
            params = files.unread_weights(directory, init)
        else:
            params, step = files.read_weights(directory, init, step)
        model = self.trained(config, params, step, plan, files.read_files(directory, self.files))
        return dataclasses.replace(model, name=str(directory))

    def as_stored(self, model: Any) -> Any:
        """A model that was loaded from a directory, with its weights in the dtypes that they have there."""
        return dataclasses.replace(model, params=files.as_stored(Path(model.name), model.params))

    def trained(
        self, config: Any, params: Params, step: int = 0, plan: parallel.Plan | None = None, files: Files = NO_FILES
    ) -> Any:
        """A model of these parts; by default on one device."""
        return self.model(config, params, step, plan or parallel.make_plan("jit"), files, self)

    def write_model(
        self, directory: Path, config: Any, params: Params, step: int, small: Files = NO_FILES, dtype: str | None = None
    ) -> None:
        """Writes a model directory; see `files.write_model`."""
        files.write_model(directory, self.encode(config), params, step, small, dtype)

    def abstract_params(self, config: Any) -> Params:
        """Shapes and dtypes of the parameters, as ShapeDtypeStructs; of a GAN those of both nets."""
        if self.parameters is not None:
            return self.parameters(config)
        return programs.shapes(functools.partial(self.init_params, config))

    def build(self, config: Any, found: Files) -> Experiment:
        """The run of a config on its data.

        Raises:
            ValueError: if the data cannot be read or do not fit the net, or parts of the config do not fit together.
        """
        classes = self.classes(config)
        require(classes <= MAX_CLASSES, f"the net knows {classes} classes, expected at most {MAX_CLASSES}: set "
                "net.num_classes")  # fmt: skip
        self.check(config)
        init, make_step = self.training(config, found)
        make_step = functools.cache(make_step)  # JAX traces one function once: what is checked here is what is trained
        spec, key = self.batch_spec(config), jax.random.key(0)
        jax.eval_shape(make_step(None), jax.eval_shape(init, key), spec, key)
        source = self.open_source(self, config, found)
        draw = self.preview or self._drawn_samples
        if draw is None:
            return Experiment(init, make_step, source, tuple(spec))
        here = parallel.jit_plan()

        def preview(state, key):
            return draw(self.trained(config, state.ema_params, 0, here, found), key)

        return Experiment(init, make_step, source, tuple(spec), preview)

    @property
    def _drawn_samples(self) -> Callable[[Any, PRNGKey], np.ndarray] | None:
        """The first samples, of a family that has them; the seed is always the same, so that previews can be
        compared."""
        kinds: list[Any] = [kind for kind in self.requests if kind.verb == "sample"]
        return None if not kinds else lambda model, key: model.perform(kinds[0](num=PREVIEWED)).sheet()
