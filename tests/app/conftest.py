"""Studios of `studio_toy.py`, where the extra `app` is installed."""

import pytest


@pytest.fixture
def here(tmp_path):
    """A studio without a token."""
    pytest.importorskip("fastapi")
    import studio_toy

    with studio_toy.served(tmp_path / "studio") as running:
        yield running


@pytest.fixture
def client(here):
    """A program on this machine."""
    with here.client() as client:
        yield client
