"""An undecided council that a person answered: its `council_escalation` was granted, so it is held again (CN-56)."""

from __future__ import annotations

from fleet.events import Payload, StoryUnparked
from fleet.ids import Principal
from fleet.story.state import Approval, CouncilRecord, StoryState

__all__ = ["ESCALATION", "is_asked_again", "resumed_by"]

ESCALATION = "council_escalation"
"""The gate that every council of selection or gate opens when it comes to no decision."""


def is_asked_again(state: StoryState, council: CouncilRecord) -> bool:
    """Whether a person granted the escalation of this council, which came to no decision.

    There is no default winner: consent means that the same is asked of a new council, never that some draft has won.
    """
    if council.status != "UNDECIDED":
        return False
    asked = (a for a in state.approvals.values() if a.request.gate == ESCALATION and a.status == "granted")
    return any(a.request.subject.id == council.opened.council_id for a in asked)


def resumed_by(state: StoryState, approval: Approval, who: Principal, note: str | None) -> tuple[Payload, ...]:
    """What goes with the grant: a story that was parked for this goes on in the same append (LC-95); else nothing.

    The advice of a council moves nothing, and at a gate a person decides the gate itself.
    """
    council = state.councils.get(approval.request.subject.id)
    is_parked = state.disposition == "parked" and state.park is not None and state.park.cause == "council_undecided"
    if council is None or council.is_advice or council.opened.approval_id or not is_parked or state.unresolved_steps:
        return ()
    why = note or f"council {council.opened.council_id} came to no decision; the same is asked of another one"
    return (StoryUnparked(by=who, note=why, cause="council_undecided"),)
