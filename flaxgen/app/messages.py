"""What the server and its clients say to each other: these classes are checked, sent and described in OpenAPI."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22}$")]
"""What the server calls a job or a picture."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
State = Literal["queued", "running", "done", "failed", "cancelled"]
OVER = ("done", "failed", "cancelled")
"""States that a job does not leave."""


class Message(BaseModel):
    """A JSON object with these fields and no others, of these types and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Token(Message):
    """What a browser shows once to be let in."""

    token: Annotated[str, StringConstraints(max_length=512)]


class Drawing(Message):
    """Pictures that were drawn at once, as PNG files in base64, the whole request, and who drew them."""

    model: str
    verb: str
    request: dict[str, Any]
    pictures: list[str]
    replica: str


class Favourite(Message):
    """Whether a picture is one."""

    favourite: bool


class Asked(Message):
    """A job to do: the fields of a request, with the ids of pictures where it takes pictures, and which picture it
    came from."""

    model: Name
    verb: Name
    request: dict[str, Any]
    parent: Id | None = None


class Job(Message):
    """A job: `position` counts those before it while it is queued, `step` of `steps` is where it is while it runs."""

    id: str
    model: str
    verb: str
    request: dict[str, Any]
    state: State
    position: int | None = None
    step: int = 0
    steps: int = 0
    error: str | None = None
    pictures: list[str] = []
    created: float
    started: float | None = None
    finished: float | None = None
    parent: str | None = None


class Jobs(Message):
    """Jobs, the newest first."""

    jobs: list[Job]


class Picture(Message):
    """A picture that was drawn, the `index`-th of its job, or that was uploaded; `parent` is what it came from."""

    id: str
    job: str | None
    model: str | None
    verb: str | None
    request: dict[str, Any] | None
    index: int
    width: int
    height: int
    favourite: bool
    created: float
    parent: str | None
    kind: Literal["drawn", "upload"]


class Gallery(Message):
    """Pictures, the newest first; `next` is where those before them begin."""

    pictures: list[Picture]
    next: str | None


class History(Message):
    """Where a picture came from, nearest first, and what came of it."""

    ancestors: list[Picture]
    children: list[Picture]


class Uploaded(Message):
    """A picture that was taken in; `sha` is of the PNG file that is kept."""

    id: str
    width: int
    height: int
    sha: str


class Read(Message):
    """What a picture says that it was drawn by; of pictures that it came from, the ids of those that are here."""

    model: str
    verb: str
    request: dict[str, Any]


class Card(Message):
    """A model: `examples` are captions that it knows, `size` width and height of what it draws where they are fixed."""

    name: str
    family: str
    description: str
    examples: list[str]
    size: list[int] | None
    verbs: list[str]
    loaded: bool


class Cards(Message):
    """The models."""

    models: list[Card]


class Status(Message):
    """The server: its version, what it runs on, how many jobs wait, and who asks."""

    version: str
    device: str
    queue: int
    user: str
