"""What a story has on record of its deployments, and of what went wrong with them (LC-49)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fleet.kernel.ids import Digest
from fleet.kernel.types import DeploymentStatus


@dataclass(frozen=True, slots=True)
class Deployment:
    """A tree that was sent to the story's environment, and how it has been since (LC-49)."""

    deployment_id: str
    environment: str
    tree: Digest
    status: DeploymentStatus
    version: int
    loopbacks: int
    """How often the story had gone back when it was recorded."""
    revision: str = ""
    """The key under which its environment knows it."""
    monitor_s: int = 0
    rollback_ref: str | None = None
    """What a rollback goes back to; None where its target declares none."""
    detail: str = ""
    windows: int = 0
    """Windows that were observed, healthy or not."""
    healthy_from_ms: int = 0
    """Since when every window has been healthy; 0 while none was, or the last one was not."""
    healthy_to_ms: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether it has been so for as long as it has to be (LC-63)."""
        return self.healthy_from_ms > 0 and self.healthy_ms >= self.monitor_s * 1000

    @property
    def healthy_ms(self) -> int:
        """For how long every window has been healthy."""
        return self.healthy_to_ms - self.healthy_from_ms

    @property
    def rolls_back(self) -> bool:
        """Whether the breach in its newest window takes it back: the first one, and what it replaced is known."""
        return self.status == "succeeded" and self.windows == 1 and self.rollback_ref is not None

    def seen(self, *, ok: bool, from_ms: int, to_ms: int) -> Deployment:
        """With one window more; from and to in UTC milliseconds. A breach starts the time of health anew."""
        healthy_from = (self.healthy_from_ms or from_ms) if ok else 0
        return replace(self, windows=self.windows + 1, healthy_from_ms=healthy_from, healthy_to_ms=to_ms if ok else 0)


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that was wrong in an environment, until it is closed."""

    incident_id: str
    summary: str
    loopbacks: int
    """How often the story had gone back when it was opened."""
    deployment_id: str | None = None
    task_id: str | None = None
    is_closed: bool = False
