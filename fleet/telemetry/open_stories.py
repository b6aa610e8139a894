"""How many stories are open and how long people have been asked, from the events of each story."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepStarted
from fleet.events.story import StoryCancelled, StoryClosed, StoryParked, StoryPaused, StoryResumed, StoryUnparked
from fleet.telemetry.event_figures import StepStart

Disposition = Literal["active", "paused", "parked", "over"]
Age = Literal["below_1h", "below_8h", "below_24h", "older"]
AGES: tuple[tuple[Age, int], ...] = (("below_1h", 1), ("below_8h", 8), ("below_24h", 24))
"""Upper bounds in hours."""


@dataclass(slots=True)
class OpenStory:
    """One story as its events tell it; an event that was taken before changes nothing."""

    version: int = 0
    disposition: Disposition = "active"
    pending: dict[str, int] = field(default_factory=dict[str, int])
    """Requests without an answer, by when they were made (UTC milliseconds)."""
    starts: dict[str, StepStart] = field(default_factory=dict[str, StepStart])
    """Steps without a result."""

    def take(self, event: StoredEvent, payload: Payload) -> StepStart | None:
        """The story after this event; the start of the step that it ends, if it ends one."""
        if event.version <= self.version:
            return None
        self.version = event.version
        match payload:
            case StepStarted():
                self.starts[payload.step_id] = StepStart(payload.kind, payload.as_role, event.ts_ms)
            case StepFinished():
                return self.starts.pop(payload.step_id, None)
            case ApprovalRequested():
                self.pending[payload.approval_id] = event.ts_ms
            case ApprovalGranted() | ApprovalRejected() | ApprovalExpired() | ApprovalRevoked():
                self.pending.pop(payload.approval_id, None)
            case _:
                self._turn(payload)
        return None

    def _turn(self, payload: Payload) -> None:
        match payload:
            case StoryParked():
                self.disposition = "parked"
            case StoryPaused():
                self.disposition = "paused"
            case StoryUnparked() | StoryResumed():
                self.disposition = "active"
            case StoryCancelled() | StoryClosed():
                self.disposition = "over"
            case _:
                return


def ages_of(stories: Iterable[OpenStory], *, now_ms: int) -> dict[Age, int]:
    """Requests without an answer by age."""
    ages: dict[Age, int] = {"below_1h": 0, "below_8h": 0, "below_24h": 0, "older": 0}
    for story in stories:
        for asked_ms in story.pending.values():
            ages[_age((now_ms - asked_ms) / 3_600_000)] += 1
    return ages


def _age(hours: float) -> Age:
    for age, bound in AGES:
        if hours < bound:
            return age
    return "older"
