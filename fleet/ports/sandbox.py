"""Port: where commands run (RC-20..RC-37)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from fleet.ids import RunKey, StoryId
from fleet.tools import RunResult, RunSpec

__all__ = ["Sandbox", "SandboxBackend", "SandboxHealth"]


@dataclass(frozen=True, slots=True)
class SandboxHealth:
    """What a backend enforces here and now, by probes and not by flags; `mend` says what to do about `unmet` items."""

    status: Literal["ok", "degraded", "down"]
    backend: str
    enforced: dict[str, str] = field(default_factory=dict[str, str])
    unmet: tuple[str, ...] = ()
    mend: tuple[str, ...] = ()


class SandboxBackend(Protocol):
    """One technology that holds a run. Knows nothing of keys and epochs; the supervisor service does."""

    async def run(self, spec: RunSpec, *, run_id: str) -> RunResult:
        """Run the command and say how it ended. SandboxUnavailable when nothing could hold it; then nothing started.

        Cancelling the awaiting task kills every process of the run before CancelledError leaves this method.
        """
        ...

    async def cancel(self, run_id: str) -> bool:
        """Kill the run if it is running here; it then ends as `cancelled`. False when it is not known."""
        ...

    async def health(self) -> SandboxHealth:
        """Run the probes (about one second the first time, cached afterwards)."""
        ...

    async def sweep(self) -> int:
        """Remove what dead runs left (processes, directories); the number of things removed. Idempotent."""
        ...


class Sandbox(Protocol):
    """What the story engine asks for: runs by key (RC-51, RC-53). One result per key, ever."""

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run the command once per key and say how it ended; a repeated key is joined, or answered from the record.

        Raises SandboxUnavailable when nothing could hold it, OwnershipLost when a higher epoch was seen; in both
        cases nothing started. IdempotencyMismatch when the key names another spec.
        """
        ...

    async def cancel(self, key: RunKey) -> bool:
        """Kill the run of this key if it is under way; False when there is none."""
        ...

    async def health(self) -> SandboxHealth:
        """What the sandbox of this node enforces."""
        ...
