"""Which events of a story are worth remembering, and how many of them its state knows by their versions (CX-1)."""

from __future__ import annotations

from fleet.events.approval import ApprovalGranted, ApprovalRejected
from fleet.events.plan import PlanAdopted, PlanProposed, PlanRejected
from fleet.events.story import MilestoneReached, StoryCreated, StoryEdited, StoryTransitioned
from fleet.events.workspace import DeploymentRecorded

MILESTONES = frozenset(
    cls.type
    for cls in (
        ApprovalGranted,
        ApprovalRejected,
        DeploymentRecorded,
        MilestoneReached,
        PlanAdopted,
        PlanProposed,
        PlanRejected,
        StoryCreated,
        StoryEdited,
        StoryTransitioned,
    )
)
"""Types of the events. A question for consent is none: only its answer is."""
_KEPT = 100
"""As many as a pack may show."""


def with_milestone(known: tuple[int, ...], type: str, version: int) -> tuple[int, ...]:
    """The versions of the newest milestones, this event among them if it is one."""
    return (*known, version)[-_KEPT:] if type in MILESTONES else known
