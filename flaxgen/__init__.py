"""flaxgen: the JAX/Flax zoo of image generation."""

__version__ = "0.1.0"


def load(path, plan=None):
    """The model in a run or model directory, with its verbs: `flaxgen.load("runs/digits").sample(key, num=64)`.

    `plan` says on which devices (`flaxgen.parallel.make_plan("mesh")`); by default on one.
    """
    # Imported here, so that `import flaxgen` stays light.
    from flaxgen import zoo

    return zoo.load(path, plan)
