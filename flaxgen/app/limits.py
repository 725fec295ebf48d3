"""What a user, a request and a picture may take at most. Every number that bounds the server is here."""

from collections.abc import Mapping
from typing import NamedTuple

GIB, MIB = 2**30, 2**20


class Limits(NamedTuple):
    """Bounds of a studio: sizes in bytes, times in seconds. `pictures` is of all that a job draws, candidates counted,
    `work` the product of these and of sampling steps, `together` the jobs that are drawn at once; `kept_jobs` is how
    many finished ones a user's history has."""

    waiting: int = 16
    waiting_of_all: int = 256
    stored: int = GIB
    stored_of_all: int = 20 * GIB
    kept_jobs: int = 2_000
    json: int = 256 * 2**10
    upload: int = 16 * MIB
    pixels: int = 16 * 2**20
    body_time: float = 60.0
    listeners: int = 8
    listeners_of_all: int = 128
    events: int = 256
    page: int = 200
    caption: int = 1_000
    captions: int = 16
    inputs: int = 16
    pictures: int = 256
    work: int = 25_600
    together: int = 8
    model_memory: int = 8 * GIB


MOST: Mapping[str, int] = {
    "num": 64,
    "candidates": 16,
    "steps": 250,
    "frames": 240,
    "first": 2**31 - 1_000,
    "against": 4_096,
    "grid": 32,
    "clip_skip": 16,
    "tile": 4_096,
    "top_k": 2**20,
}
"""The largest whole number of a field of this name that says none of its own."""
MOST_OF_OTHERS = 1_024
SIDES = (256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024)
"""The widths and heights that may be asked for: each pair is compiled by itself."""
