"""Decide what setting a budget records: lowering counts at once, raising needs the consent of gate `raise_budget`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from fleet.events.approval import ApprovalGranted, ApprovalRequested, Subject
from fleet.events.budget import BudgetScope, BudgetSet
from fleet.events.payload import Payload
from fleet.events.story import StoryUnparked
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import ApprovalRequired, InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import Digest, EntityId
from fleet.kernel.types import BudgetLimit, NoteRequest
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import QUANTITIES, BudgetLimits
from fleet.story.allowance import limits_of
from fleet.story.approvals import last_request, valid_grant
from fleet.story.commands.command import Attachment, Caller, Facts, Outcome, RefusedOnRecord, StoryCommand
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState

Limits = dict[BudgetLimit, Annotated[int, Field(ge=0)] | None]
"""New limits; None takes one away."""
RAISE_GATE = "raise_budget"
_SCOPES = ("story", "task", "council", "role")


class SetBudget(NoteRequest, StoryCommand):
    """A scope of the story has other limits (MB-24)."""

    model_config = ConfigDict(extra="forbid")
    command = "set_budget"
    scope: Annotated[str, Field(max_length=20)] = "story"
    id: Annotated[str | None, Field(max_length=80)] = None
    limits: Limits

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The new limits; one that is raised by somebody who cannot consent to that leaves its request on record.

        Raises:
            RefusedOnRecord: with ApprovalRequired, and the request if none waits.
            InvalidInput, NotFound, PolicyDenied, InvalidTransition: see `change_of`, `parse_scope` and `set_budget`.
        """
        scope, limits = parse_scope(state, self.scope, self.id), {str(k): v for k, v in self.limits.items()}
        change = change_of(state, facts.budgets, scope, limits)
        last = last_request(state, RAISE_GATE, change.digest)
        attempt = last.request.attempt + 1 if last else 1
        name = f"gate/{RAISE_GATE}/{change.digest.hex[:16]}/{attempt}"
        card = Attachment(canonical_json(_card(state, change, self.note)))
        request = request_raise(
            state,
            facts.fsm,
            change,
            approval_id=facts.new_id("ap", name),
            card=card.digest,
            caller=facts.caller,
            now_ms=facts.now_ms,
            attempt=attempt,
        )
        decided = set_budget(
            state, facts.fsm, change, caller=facts.caller, now_ms=facts.now_ms, note=self.note, consent=request
        )
        if not isinstance(decided, ConsentNeeded):
            return (card, *decided)
        error = _needs_consent(state, change, decided, request)
        if decided.pending is not None:
            raise error
        raise RefusedOnRecord(name, (card, request), error)


def _card(state: StoryState, change: BudgetChange, note: str) -> dict[str, object]:
    return {
        "gate": RAISE_GATE,
        "story": {"id": state.story_id, "title": state.content.title, "state": state.state},
        "scope": change.scope.model_dump(),
        "limits": change.as_recorded(),
        "tokens": state.tokens,
        "note": note,
    }


def _needs_consent(
    state: StoryState, change: BudgetChange, needed: ConsentNeeded, request: ApprovalRequested
) -> ApprovalRequired:
    approval_id = needed.pending or request.approval_id
    return ApprovalRequired(
        f"a person in role {needed.role} has to approve the higher budget first: `fleet story approve "
        f"{state.story_id} {approval_id}`, then send the same limits again",
        rule_id="MB-24",
        gate=RAISE_GATE,
        role=needed.role,
        approval_id=approval_id,
        request_digest=str(change.digest),
    )


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """New limits of one scope, whole, and whether one of them is higher than it was."""

    scope: BudgetScope
    limits: BudgetLimits
    is_raise: bool

    @property
    def digest(self) -> Digest:
        """What a consent to this change is about."""
        return digest_of_json({"scope": self.scope.model_dump(), "limits": self.as_recorded()})

    def as_recorded(self) -> dict[str, int]:
        """The limits that there are."""
        return {name: limit for name in QUANTITIES if (limit := self.limits.of(name)) is not None}


@dataclass(frozen=True, slots=True)
class ConsentNeeded:
    """A person in the role of the gate has to say yes first."""

    role: str
    pending: EntityId | None
    """The request that waits already."""
    attempt: int


def parse_scope(state: StoryState, kind: str, name: str | None) -> BudgetScope:
    """The scope of this story that is meant; the story itself unless a name says more.

    Raises:
        InvalidInput: the kind is not one of a story's own; those of platform and project are in config/models.yaml.
        NotFound: the story has no such task or council.
    """
    if kind not in _SCOPES:
        raise InvalidInput(
            f"the budget of a {kind!r} is not set in a story: allowed are {', '.join(_SCOPES)}; limits of the platform "
            "and of projects stand in config/models.yaml, `budgets`",
            field="scope",
            value=kind,
            allowed=list(_SCOPES),
        )
    if kind == "story":
        return BudgetScope(kind="story", id=state.story_id)
    known = {"task": state.tasks, "council": state.councils}.get(kind)
    if not name or (known is not None and name not in known):
        raise NotFound(f"story {state.story_id} has no {kind} {name!r}", kind=kind, id=name)
    return BudgetScope(kind=kind, id=name)  # pyright: ignore[reportArgumentType]


def change_of(state: StoryState, config: Budgets, scope: BudgetScope, limits: Mapping[str, int | None]) -> BudgetChange:
    """The change that these new limits make; quantities that are not named keep theirs, None takes a limit away.

    Raises:
        InvalidInput: an unknown quantity, a number below 0, nothing at all, or a story without any bound (MB-20).
    """
    wrong = [name for name, value in limits.items() if name not in QUANTITIES or (value is not None and value < 0)]
    if wrong or not limits:
        raise InvalidInput(
            f"{wrong[0] if wrong else 'nothing'!r} cannot be limited so: give a whole number from 0 for one of "
            f"{', '.join(QUANTITIES)}",
            field="limits",
            allowed=list(QUANTITIES),
        )
    before = limits_of(state, config, scope)
    after = BudgetLimits.model_validate({**before.model_dump(), **limits})
    if scope.kind == "story" and after.tokens is None and after.gpu_ms is None:
        raise InvalidInput("a story keeps a limit on tokens or on gpu_ms", field="limits")
    higher = [name for name in QUANTITIES if _is_higher(before.of(name), after.of(name))]
    return BudgetChange(scope, after, is_raise=bool(higher))


def _is_higher(before: int | None, after: int | None) -> bool:
    return before is not None and (after is None or after > before)


def set_budget(
    state: StoryState,
    config: FsmConfig,
    change: BudgetChange,
    *,
    caller: Caller,
    now_ms: int,
    note: str = "",
    consent: ApprovalRequested | None = None,
) -> tuple[Payload, ...] | ConsentNeeded:
    """What the change records (MB-24). A story that was parked because of its budget goes on when it is raised.

    Args:
        consent: the request that a person who holds the gate's role answers by making the change.

    Raises:
        PolicyDenied: the caller is neither po nor admin.
        InvalidTransition: the story is over.
    """
    caller.require("po", "admin", rule_id="MB-24", listed=True)
    if state.is_over:
        raise InvalidTransition(
            f"story {state.story_id} is over: its budget does not matter any more",
            state=state.state,
            event="set_budget",
            allowed=[],
        )
    if not change.is_raise:
        return (_recorded(change, caller, None),)
    gate = config.gate(state.lifecycle, RAISE_GATE)
    granted = valid_grant(state, RAISE_GATE, change.digest, now_ms=now_ms)
    if granted is not None:
        return (_recorded(change, caller, granted.request.approval_id), *_goes_on(state, caller, note))
    if not (caller.principal.is_human and gate.role in caller.roles):
        last = last_request(state, RAISE_GATE, change.digest)
        waits = last is not None and last.status == "requested" and last.request.expires_at > now_ms
        attempt = last.request.attempt + 1 if last else 1
        return ConsentNeeded(gate.role, last.request.approval_id if last and waits else None, attempt)
    if consent is None:
        return (_recorded(change, caller, None), *_goes_on(state, caller, note))
    yes = ApprovalGranted(
        approval_id=consent.approval_id,
        principal=caller.principal,
        as_role=gate.role,
        subject_digest=change.digest,
        notes=note or None,
        grant_expires_at=now_ms + gate.grant_ttl_s * 1000,
        delegated=False,
    )
    return (consent, yes, _recorded(change, caller, consent.approval_id), *_goes_on(state, caller, note))


def request_raise(
    state: StoryState,
    config: FsmConfig,
    change: BudgetChange,
    *,
    approval_id: EntityId,
    card: Digest,
    caller: Caller,
    now_ms: int,
    attempt: int = 1,
) -> ApprovalRequested:
    """The request for consent to a higher limit."""
    gate = config.gate(state.lifecycle, RAISE_GATE)
    return ApprovalRequested(
        approval_id=approval_id,
        gate=RAISE_GATE,
        role=gate.role,
        actor=gate.actor,
        subject=Subject(kind="object", id=f"{change.scope.kind}:{change.scope.id}", digest=change.digest),
        risk="medium",
        expires_at=now_ms + gate.request_ttl_s * 1000,
        attempt=attempt,
        card_digest=card,
        requested_by=caller.principal,
    )


def _recorded(change: BudgetChange, caller: Caller, approval_id: EntityId | None) -> BudgetSet:
    return BudgetSet(
        scope=change.scope,
        limits=change.as_recorded(),  # pyright: ignore[reportArgumentType]
        by=caller.principal,
        approval_id=approval_id,
    )


def _goes_on(state: StoryState, caller: Caller, note: str) -> tuple[StoryUnparked, ...]:
    if state.disposition != "parked" or state.park is None or state.park.cause != "budget_exhausted":
        return ()
    return (StoryUnparked(by=caller.principal, note=note or "the budget was raised", cause="budget_exhausted"),)
