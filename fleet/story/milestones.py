"""Which events of a story are worth remembering, and how many of them its state knows by their versions (CX-1)."""

from __future__ import annotations

from fleet import events as ev

__all__ = ["MILESTONES", "with_milestone"]

MILESTONES = frozenset(
    cls.type
    for cls in (
        ev.ApprovalGranted,
        ev.ApprovalRejected,
        ev.DeploymentRecorded,
        ev.MilestoneReached,
        ev.PlanAdopted,
        ev.PlanProposed,
        ev.PlanRejected,
        ev.StoryCreated,
        ev.StoryEdited,
        ev.StoryTransitioned,
    )
)
"""Types of the events. A question for consent is none: only its answer is."""
_KEPT = 100
"""As many as a pack may show."""


def with_milestone(known: tuple[int, ...], type: str, version: int) -> tuple[int, ...]:
    """The versions of the newest milestones, this event among them if it is one."""
    return (*known, version)[-_KEPT:] if type in MILESTONES else known
