"""flaxgen: the JAX/Flax zoo of image generation."""

__version__ = "0.1.0"


def load(path, *, step=None):
    """The model in a run directory or model directory, with its verbs; see `flaxgen.zoo.load`."""
    from flaxgen import zoo

    return zoo.load(path, step=step)
