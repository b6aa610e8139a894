"""Trees of a story that a person can go back to, and the wish to do so (PL-47)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.kernel.ids import Digest, Principal


@dataclass(frozen=True, slots=True)
class TreeCheckpoint:
    """A tree of the story that a person can go back to, and where every task stood then (PL-47)."""

    checkpoint_id: str
    version: int
    """Of the event that saved it; names it as well as its id does."""
    ts_ms: int
    tree: Digest
    task_states: Mapping[str, str]
    note: str


@dataclass(frozen=True, slots=True)
class Restoration:
    """A person's request to go back to a checkpoint that is not carried out yet (PL-47)."""

    checkpoint_id: str
    by: Principal
    reason: str
    number: int
    """Of the request, counted from 1 in its story."""
