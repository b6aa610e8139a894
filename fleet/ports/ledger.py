"""Port: which run of a key is under way or done, and which of them somebody wants to end (RC-26, RC-54)."""

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
    """Another supervisor runs the key until `deadline_ms` of the store's clock.

    `is_cancel_requested`: somebody asked for its end. `is_detached`: nobody waits for it, so whoever finds it without a
    supervisor records that it is lost.
    """

    supervisor: str
    deadline_ms: int
    is_cancel_requested: bool = False
    is_detached: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A detached run whose deadline has passed without a result."""

    supervisor: str


@dataclass(frozen=True, slots=True)
class Done:
    """The key was run; `result` is the digest of its recorded RunResult."""

    result: Digest


class RunLedger(Protocol):
    """One RUNNING or DONE entry per key. The result is stored before the ledger says DONE."""

    async def claim(
        self,
        key: RunKey,
        *,
        story: StoryId,
        epoch: int,
        spec: Digest,
        supervisor: str,
        ttl_s: int,
        is_detached: bool = False,
    ) -> Claimed | Running | Done:
        """Who runs the key. A RUNNING entry of a dead supervisor is claimed anew once its deadline has passed.

        A new claim knows nothing of a cancel request that an earlier one got.

        Raises OwnershipLost when a higher epoch was seen for the story; IdempotencyMismatch when the key was claimed
        with another spec digest (RC-12).
        """
        ...

    async def finish(self, key: RunKey, *, epoch: int, supervisor: str, result: Digest) -> Digest:
        """The recorded result of the key: the first one stays, and is returned also to a later caller."""
        ...

    async def lookup(self, key: RunKey) -> Running | Lost | Done | None:
        """What the ledger knows of the key; None also for one that a caller waits for and whose deadline has passed."""
        ...

    async def renew(self, key: RunKey, *, supervisor: str, ttl_s: int) -> None:
        """This supervisor's RUNNING entry has a new deadline, `ttl_s` seconds from now; any other entry stays."""
        ...

    async def request_cancel(self, key: RunKey) -> bool:
        """Whoever runs the key finds `is_cancel_requested` at its next lookup; false when nobody does. Idempotent."""
        ...

    async def forget(self, key: RunKey, *, supervisor: str) -> None:
        """Drop this supervisor's RUNNING entry: nothing was started, or it was cancelled before an end."""
        ...

    async def drop(self, key: RunKey, found: Running) -> None:
        """Drop a RUNNING entry whose supervisor is known not to run the key, if it still is the one that was found.

        One that was claimed or renewed in the meantime stays, whoever holds it: so any number of supervisors may do
        this at the same time, and one of them claims the key next.
        """
        ...
