"""A shell settles the process that it lives in; here that is the process of the tests."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True)
def _collection_as_before() -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    """What was frozen stays so: searched again and again, all that the tests have loaded costs seconds each time."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
