"""The command that takes one dimension out of a story's score for a time (RG-43)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.events.approval import ApprovalGranted
from fleet.events.story import StoryUnparked
from fleet.events.workspace import DimensionWaived
from fleet.kernel.errors import GateClosed, InvalidTransition, PolicyDenied
from fleet.kernel.types import ReasonRequest, WaivableDimension
from fleet.story.approvals import check_approver, check_notes, subject_of
from fleet.story.commands.command import Facts, Outcome, StoryCommand, require_not_over
from fleet.story.commands.request_approval import gate_request
from fleet.story.guards import held_waivers
from fleet.story.state import StoryState

GATE = "waive_dimension"
_DAY_S = 86_400


class WaiveRequest(ReasonRequest):
    """Why a dimension may be missing from a story's score, and for how long."""

    days: Annotated[int | None, Field(ge=1, le=365)] = None
    """For how long it holds; without it, as long as a grant of the gate `waive_dimension`, which it never outlives."""


class WaiveDimension(WaiveRequest, StoryCommand):
    """One dimension does not count in the story's score until the waiver expires: a person in role qa says so."""

    command = "waive_dimension"
    dimension: WaivableDimension

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The approval with its card, and the waiver; a story that was parked at its score goes on.

        Raises:
            PolicyDenied: the caller is no person in role qa, wrote the work at L3, or a waiver does not hold at L3.
            GateClosed: nothing of the story was measured yet.
            InvalidTransition: the story is over, or the dimension is waived already.
        """
        caller, now_ms = facts.caller, facts.now_ms
        require_not_over(state, self.command)
        gate = facts.fsm.gate(state.lifecycle, GATE)
        subject = subject_of(state, gate)
        if subject is None:
            raise GateClosed(
                f"nothing of story {state.story_id} was measured yet: wait for its first score",
                state=state.state,
                event=GATE,
                guards=[],
            )
        check_approver(state, gate, subject, principal=caller.principal, roles=caller.roles, delegated=False)
        if state.rigor == "L3" and self.dimension != "e2e":
            raise PolicyDenied(
                f"no waiver holds at L3, and story {state.story_id} has rigor L3: {self.dimension} has to be met; at "
                "L3 role qa approves a declaration `e2e.none` of the repository alone",
                rule_id="RG-43",
            )
        held = next((w for w in held_waivers(state, now_ms=now_ms) if w.dimension == self.dimension), None)
        if held is not None:
            raise InvalidTransition(
                f"dimension {self.dimension} of story {state.story_id} is waived by {held.principal} already",
                state=state.state,
                event="waive",
                allowed=[],
            )
        card, requested = gate_request(
            state, facts.fsm, facts.targets, GATE, subject, requester=caller.principal, now_ms=now_ms
        )
        most_s = gate.grant_ttl_s
        until = now_ms + min(most_s, self.days * _DAY_S if self.days is not None else most_s) * 1000
        reason = check_notes(self.reason, "reason")
        granted = ApprovalGranted(
            approval_id=requested.approval_id,
            principal=caller.principal,
            as_role=gate.role,
            subject_digest=subject.digest,
            notes=f"{self.dimension}: {reason}"[:4000],
            grant_expires_at=until,
            delegated=False,
        )
        waived = DimensionWaived(
            dimension=self.dimension,
            reason=reason,
            principal=caller.principal,
            approval_id=requested.approval_id,
            expires_at=until,
        )
        if state.disposition != "parked" or state.park is None or state.park.cause != "loopback_limit":
            return (card, requested, granted, waived)
        note = f"{self.dimension} is waived: {reason}"[:4000]
        return (card, requested, granted, waived, StoryUnparked(by=caller.principal, note=note, cause="loopback_limit"))
