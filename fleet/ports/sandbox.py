"""Port: where commands run (RC-20..RC-36)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fleet.ids import RunKey, StoryId
from fleet.ports.run_logs import LogPage
from fleet.ports.secrets import SecretDelivery
from fleet.tools import LogLine, RunResult, RunSpec, RunStatus

__all__ = ["LogSink", "RunProgress", "Sandbox", "SandboxBackend", "SandboxHealth"]

LogSink = Callable[[LogLine], None]
"""Takes a line as it is read, already redacted; it must not block and not fail."""


SandboxTier = Literal["A", "B", "C"]
_TIERS: Mapping[str, SandboxTier] = {"bubblewrap": "A", "podman": "B", "docker": "B", "kubernetes": "B"}


@dataclass(frozen=True, slots=True)
class SandboxHealth:
    """What a backend enforces here and now, by probes and not by flags; `mend` says what to do about `unmet` items."""

    status: Literal["ok", "degraded", "down"]
    backend: str
    enforced: dict[str, str] = field(default_factory=dict[str, str])
    unmet: tuple[str, ...] = ()
    mend: tuple[str, ...] = ()
    active: int = 0
    """Runs under way or waiting here (RC-25)."""
    total: int = 0
    """Runs that were started here since this supervisor began."""
    capacity: int = 0
    """Runs that are taken at one time, waiting ones included; 0 when a backend is asked directly."""

    @property
    def tier(self) -> SandboxTier:
        """What kind of wall it is: A namespaces and seccomp of our own, B a container engine, C none that isolates."""
        return _TIERS.get(self.backend, "C")


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run is; `result` once its status is final."""

    status: RunStatus
    result: RunResult | None = None


class SandboxBackend(Protocol):
    """One technology that holds a run. Knows nothing of keys and epochs; the supervisor service does."""

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Run the command and say how it ended. SandboxUnavailable when nothing could hold it; then nothing started.

        Args:
            log: is told every line while the run goes on.
            secrets: what argv and environment of the specification refer to, resolved; it is put in place inside and
                taken out of everything that is printed. None where the specification has no references.

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

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        """Start the run, once per key, and return at once (RC-20). Raises like `run`."""
        ...

    async def progress(self, key: RunKey, *, wait_s: float = 0) -> RunProgress:
        """Where the run is, at the latest after `wait_s` seconds (RC-21); by any supervisor of the fleet (RC-26).

        Raises NotFound for a key that nobody ever claimed.
        """
        ...

    async def logs(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """Lines of the run with a number above `after` (RC-22), live, or from its log once it is over."""
        ...

    async def cancel(self, key: RunKey) -> bool:
        """End the run of this key wherever it is under way (RC-24); False when there is none."""
        ...

    async def health(self) -> SandboxHealth:
        """What the sandbox of this node enforces."""
        ...
