"""What a story has on record of its deployments, and of what went wrong with them (LC-49)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.ids import Digest

__all__ = ["Deployment", "Incident"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A tree that was sent to the story's environment, and how it has been since (LC-49)."""

    deployment_id: str
    environment: str
    tree: Digest
    status: Literal["succeeded", "failed", "unknown", "rolled_back"]
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
        return self.healthy_from_ms > 0 and self.healthy_to_ms - self.healthy_from_ms >= self.monitor_s * 1000


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
