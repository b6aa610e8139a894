"""Port: which run of a key is under way or done (RC-54)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.ids import Digest, RunKey, StoryId

__all__ = ["Claimed", "Done", "Running", "RunLedger"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The caller runs the key now."""


@dataclass(frozen=True, slots=True)
class Running:
    """Another supervisor runs the key until `deadline_ms` of the store's clock."""

    supervisor: str
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """The key was run; `result` is the digest of its recorded RunResult."""

    result: Digest


class RunLedger(Protocol):
    """One RUNNING or DONE entry per key. The result is stored before the ledger says DONE."""

    async def claim(
        self, key: RunKey, *, story: StoryId, epoch: int, spec: Digest, supervisor: str, ttl_s: int
    ) -> Claimed | Running | Done:
        """Who runs the key. A RUNNING entry of a dead supervisor is claimed anew once its deadline has passed.

        Raises OwnershipLost when a higher epoch was seen for the story; IdempotencyMismatch when the key was claimed
        with another spec digest (RC-12).
        """
        ...

    async def finish(self, key: RunKey, *, epoch: int, supervisor: str, result: Digest) -> Digest:
        """The recorded result of the key: the first one stays, and is returned also to a later caller."""
        ...

    async def lookup(self, key: RunKey) -> Running | Done | None:
        """What the ledger knows of the key."""
        ...

    async def forget(self, key: RunKey, *, supervisor: str) -> None:
        """Drop this supervisor's RUNNING entry: nothing was started, or it was cancelled before an end."""
        ...
