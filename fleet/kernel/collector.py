"""Processes that live for long: what they have loaded stays, and most of what they make is gone without a search."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

_THRESHOLDS = (10_000, 20, 10)
"""New containers between two searches among the youngest, and how many of those between two among the older ones.

Nearly all of the state of a story is freed by its counts. Python's own numbers (700, 10, 10) search so often that this
takes a tenth of what a shard computes.
"""


def expect_long_life() -> None:
    """What this process has loaded so far is never searched for garbage again, and what comes less often.

    Called once, when everything is loaded; cycles that are made later are found as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def all_alive() -> Generator[None]:
    """No collection within the block: of the state of a long story they would take twice as long as reading it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
