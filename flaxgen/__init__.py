"""flaxgen: the JAX/Flax zoo of image generation.

`flaxgen.load().draw("a red circle")` draws with the model that comes along;
`flaxgen.load("runs/digits").sample(num=64)` with one of your own,
and `flaxgen.connect("http://gpu:7860", token=...).draw(...)` with one on another machine.
"""

__version__ = "0.1.0"
__all__ = ["connect", "load"]


def load(model=None, plan=None, *, sequential=False):
    """The model in a run or model directory, that comes along under a name ("scenes", the default), or of a Hub id.

    What can be asked of it are methods: `print(model)` lists them, `help(model.draw)` explains one. `plan` says on
    which devices it runs (`flaxgen.parallel.make_plan("mesh")`); by default on one. A `sequential` model of several
    parts has one of them in memory at a time.
    """
    # Imported here, so that `import flaxgen` stays light.
    from flaxgen import verbs

    return verbs.load(model, plan, sequential=sequential)


def connect(url, token=None, user=None, model=None):
    """A model of the studio at that address (`flaxgen studio` there), asked as if it were here.

    `token` is what the studio wants to be shown, `user` whose jobs and pictures these are, `model` which one is meant
    (its first). Methods, their arguments and what they return are those of the model itself.
    """
    from flaxgen import remote

    return remote.connect(url, token, user, model)


def __dir__():
    return [*__all__, "__version__"]
