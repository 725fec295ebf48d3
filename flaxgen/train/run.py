"""What every experiment's config says about its run, whatever it trains."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """How long a run is and what it leaves behind; the configs of the families inherit from it.

    `batch_size` is over all devices and hosts. A run logs, draws and saves every so many steps, and at its last;
    `preview_every=0` draws nothing. The newest `keep_checkpoints` checkpoints stay. With `start`, a run or model
    directory of the same net, the run begins with its weights: to go on with other data, or to tune what was imported.

    Raises:
        ValueError: if a number is out of range.
    """

    seed: int
    steps: int
    batch_size: int
    log_every: int = 100
    preview_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    start: str = ""

    def __post_init__(self):
        least = {"steps": 1, "batch_size": 1, "log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 1}
        for name in (field.name for field in dataclasses.fields(Run) if field.type is not str):
            value, lowest = getattr(self, name), least.get(name, 0)
            if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value < 2**31:
                raise ValueError(f"{name}={value!r} is out of range: expected an integer, {lowest} or more")
