"""The model card that goes with a model to the Hub: what it is and how it is drawn with, by what its files say."""

from pathlib import Path

from flaxgen.family import describe, directory, files
from flaxgen.family.composite import Composite
from flaxgen.family.directory import Families
from flaxgen.train.config import require

LONGEST = 40
"""How many lines of the description a card has."""
TEXT = """---
library_name: flaxgen
tags:
{tags}
---
# {title}

A model of the family `{family}`, written by flaxgen in its layout: `config.json` and
safetensors. No code comes with it.

```python
import flaxgen

model = flaxgen.load("{repository}")
pictures = model.{verb}
pictures.save("out.png")
```

`flaxgen info DIR` of a copy of it says:

```
{description}
```
"""
CALLS = {"draw": 'draw("a caption", num=4, seed=0)', "sample": "sample(num=16, seed=0)",
         "reconstruct": "reconstruct(images)"}  # fmt: skip
"""How a model is called whose family has the verb; the first that it has is shown."""


def make_card(path: Path, repository: str, families: Families) -> str:
    """The text of a card for the model directory at `path`, which will be `repository`, a Hub id.

    Raises:
        ValueError: if it is no model directory.
    """
    family = directory.family_in(path, families)
    whole = isinstance(family, Composite)
    require(whole or (path / files.WEIGHTS).is_file(), f"{path} is a run: write a model of it with `flaxgen export`")
    described = describe.describe(path, families).replace(str(path), repository, 1).splitlines()
    more = [f"... {len(described) - LONGEST} lines more"] if len(described) > LONGEST else []
    tags = ["flaxgen", "jax", "flax", "image-generation", family.name]
    verbs = {kind.verb for kind in family.requests}
    call = next((call for verb, call in CALLS.items() if verb in verbs), "generate(jax.random.key(0), num=16)")
    return TEXT.format(
        tags="\n".join(f"- {tag}" for tag in dict.fromkeys(tags)),
        title=repository.rpartition("/")[2],
        family=family.name,
        repository=repository,
        verb=call,
        description="\n".join([*described[:LONGEST], *more]),
    )
