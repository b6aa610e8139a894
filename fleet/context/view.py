"""What sections are cut from: the story's fold and the milestones, which the fold does not keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleet.context.lessons import Lesson
from fleet.events.approval import ApprovalGranted, ApprovalRejected, ApprovalRequested
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed, PlanRejected
from fleet.events.story import MilestoneReached, StoryEdited, StoryTransitioned
from fleet.events.workspace import DeploymentRecorded
from fleet.story.milestones import MILESTONES
from fleet.story.state import StoryState


@dataclass(frozen=True, slots=True)
class Milestone:
    """Something worth remembering, in words that hold no id and no time."""

    version: int
    text: str


@dataclass(frozen=True, slots=True)
class StoryView:
    """One version of a story.

    Attributes:
        summaries: the last verified summaries (CX-56), by base role; that of no role under "".
        lessons: of earlier stories.
    """

    state: StoryState
    milestones: tuple[Milestone, ...] = ()
    summaries: Mapping[str, str] = field(default_factory=dict[str, str])
    lessons: tuple[Lesson, ...] = ()


def milestones(
    events: Iterable[StoredEvent], *, last: int, gates: Mapping[str, str] | None = None
) -> tuple[Milestone, ...]:
    """The newest milestones of these events, in chronological order (CX-1, CX-30).

    Args:
        gates: by approval that was asked for before the events, its gate.
    """
    gates = dict(gates or {})
    milestones = list[Milestone]()
    for event in events:
        if event.type not in _TYPES:
            continue
        payload = decode(event)
        if isinstance(payload, ApprovalRequested):
            gates[payload.approval_id] = payload.gate
        else:
            milestones.append(Milestone(version=event.version, text=_text(payload, gates)))
    return tuple(milestones[-last:])


_TYPES = MILESTONES | {ApprovalRequested.type}
"""With what tells the gate that an answer is about."""


def _text(payload: Payload, gates: dict[str, str]) -> str:
    match payload:
        case StoryEdited():
            return f"story edited: {', '.join(sorted(payload.changes))}"
        case StoryTransitioned():
            return f"{payload.event}: {payload.from_} to {payload.to}" + (" (back)" if payload.loopback else "")
        case PlanProposed():
            return f"plan {payload.version} proposed with {len(payload.tasks)} tasks"
        case PlanAdopted():
            return f"plan {payload.version} adopted"
        case PlanRejected():
            return "plan rejected"
        case ApprovalGranted():
            how = " (delegated)" if payload.delegated else ""
            return f"gate {gates.get(payload.approval_id, '?')} granted by role {payload.as_role}{how}"
        case ApprovalRejected():
            return f"gate {gates.get(payload.approval_id, '?')} rejected by role {payload.as_role}"
        case DeploymentRecorded():
            return f"deployment to {payload.environment} {payload.status}"
        case MilestoneReached():
            return payload.name
        case _:
            return "story created"
