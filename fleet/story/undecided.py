"""A decision that is demanded from a council that came to none (CN-56, AP-30)."""

from __future__ import annotations

from fleet.kernel.errors import QuorumNotReached
from fleet.story.plan import design_decision
from fleet.story.state import CouncilRecord, StoryState


def require_decided_design(state: StoryState) -> None:
    """Returns unless a decision is demanded from the council on the design that came to none; QuorumNotReached then."""
    council = _undecided(state)
    if council is None:
        return
    council_id = council.opened.council_id
    raise QuorumNotReached(
        f"council {council_id} on the design of story {state.story_id} came to no decision ({council.reason}), and "
        "there is no default winner: read both views in its minority report, then propose a decision of category "
        "ARCHITECTURE and accept it, or edit the story",
        story_id=state.story_id,
        council_id=council_id,
        reason=council.reason,
    )


def _undecided(state: StoryState) -> CouncilRecord | None:
    """The last council on the design of the present text, when it came to no decision and nobody decided since."""
    councils = [c for c in state.design_councils() if c.opened.subject_digest == state.content.digest]
    if not councils or state.is_over or design_decision(state) is not None:
        return None
    return councils[-1] if councils[-1].status == "UNDECIDED" else None
