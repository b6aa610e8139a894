"""An undecided council that a person answered: its `council_escalation` was granted, so it is held again (CN-56)."""

from __future__ import annotations

from fleet.events.payload import Payload
from fleet.events.story import StoryUnparked
from fleet.kernel.errors import InvalidInput, VersionConflict
from fleet.kernel.ids import Principal
from fleet.story.intents import RequestEscalation
from fleet.story.state import Approval, CouncilRecord, StoryState

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


def last_escalation(state: StoryState, council_id: str) -> Approval | None:
    """The newest request about this undecided council, None when there was none."""
    found = [a for a in state.approvals.values() if a.request.gate == ESCALATION]
    return next((a for a in reversed(found) if a.request.subject.id == council_id), None)


def escalation_intents(state: StoryState, council: CouncilRecord) -> tuple[RequestEscalation, ...]:
    """A request that nobody answered is made again, as at a gate, before the story stops for it (LC-73, CN-56)."""
    last = last_escalation(state, council.opened.council_id)
    if last is None or last.status != "expired":
        return ()
    return (RequestEscalation(council_id=council.opened.council_id),)


def council_to_ask(state: StoryState) -> CouncilRecord:
    """The council whose escalation a person may ask for again (AP-76): nobody answered it, or it was turned down.

    Raises:
        InvalidInput: no council of the story came to no decision.
        VersionConflict: the last one is asked about already, or a person let the same be asked of another one.
    """
    found = [c for k, c in state.councils.items() if _holds_up(c) and last_escalation(state, k) is not None]
    if not found:
        raise InvalidInput(
            f"no council of story {state.story_id} came to no decision: nothing is to be asked", field="gate"
        )
    last = last_escalation(state, found[-1].opened.council_id)
    assert last is not None
    if last.status in ("requested", "granted"):
        raise VersionConflict(
            f"approval {last.request.approval_id} of gate {ESCALATION!r} is {last.status}",
            status=last.status,
            approval_id=last.request.approval_id,
        )
    return found[-1]


def _holds_up(council: CouncilRecord) -> bool:
    """Whether the story waits for it: advice moves nothing, and a gate is decided at the gate itself."""
    return council.status == "UNDECIDED" and not council.is_advice and not council.opened.approval_id


def _causes(state: StoryState, approval: Approval) -> frozenset[str]:
    """For what the story may have been parked that this answer ends."""
    about = approval.request.subject.id
    expired = [a for a in state.approvals.values() if a.request.gate == ESCALATION and a.status == "expired"]
    is_late = any(a.request.subject.id == about for a in expired)
    return frozenset({"council_undecided"} | ({"approval_unanswered"} if is_late else set()))


def resumed_by(state: StoryState, approval: Approval, who: Principal, note: str | None) -> tuple[Payload, ...]:
    """What goes with the grant: a story that was parked for this goes on in the same append (LC-95); else nothing.

    The advice of a council moves nothing, and at a gate a person decides the gate itself.
    """
    council = state.councils.get(approval.request.subject.id)
    park = state.park if state.disposition == "parked" else None
    if park is None or park.cause not in _causes(state, approval) or state.unresolved_steps:
        return ()
    if council is None or council.is_advice or council.opened.approval_id:
        return ()
    why = note or f"council {council.opened.council_id} came to no decision; the same is asked of another one"
    return (StoryUnparked(by=who, note=why, cause=park.cause),)  # pyright: ignore[reportArgumentType]
