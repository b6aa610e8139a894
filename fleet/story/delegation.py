"""Gates that are delegated: by a run, by a person for stories to come, and what a delegated gate owes (LC-77).

A story takes in the standing delegations that hold when it is started, so that what it is worked on under stands in
its own stream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from fleet.events.approval import Subject
from fleet.events.platform import DelegationGranted, DelegationRevoked
from fleet.events.story import RunDelegation
from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.planning.platform_state import PlatformState, StandingDelegation
from fleet.story.approvals import check_delegable, delegation_for, supporting_fact
from fleet.story.intents import DecideGate, Intent, OpenGateCouncil
from fleet.story.lifecycle import RIGORS, FsmConfig
from fleet.story.state import Approval, CouncilRecord, StoryState

DELEGATION_S = 30 * 24 * 3600
"""How long a delegation of a run holds at most (LC-77)."""
COUNCIL = "council:"
"""What a delegate begins with that is a council of the role behind it."""
COUNCIL_SEAT = 900
"""No seat of a team has it, so a delegate is the author of nothing that it decides about (LC-75)."""
_DELEGATES = {"po": Principal("agent:reviewer-001"), "qa": Principal("agent:qa-002")}

_RUN_GATES = frozenset(
    {"approve_scope", "approve_plan", "approve_design", "qa_passed", "docs_ready", "task_acceptance"}
)
"""The gates that every run passes, and that `--yes` therefore delegates."""


def check_delegates(names: Sequence[str], councils: Collection[str] | None = None) -> None:
    """Returns when a run may be started with these: roles, and one council at most that takes the gates of the others.

    Args:
        names: `po`, `qa`, `council:<role>`.
        councils: roles that councils may be of; None looks at the form alone.

    Raises:
        InvalidInput: a name that is neither; a second council; one that no gate is left for.
    """
    known = None if councils is None else [f"{COUNCIL}{role}" for role in councils]
    for name in names:
        is_council = name.startswith(COUNCIL) and (name in known if known is not None else name != COUNCIL)
        if name not in _DELEGATES and not is_council:
            allowed = [*_DELEGATES, *(known if known is not None else [f"{COUNCIL}<role>"])]
            raise _refused(f"{name[:80]!r} cannot be delegated to; allowed: {', '.join(allowed)}", allowed)
    named = sorted({name for name in names if name.startswith(COUNCIL)})
    if len(named) > 1:
        raise _refused(f"a run has one council at gates, not {' and '.join(named)}", named)
    if named and set(_DELEGATES) <= set(names):
        raise _refused(f"{named[0]} is left no gate: name it alone, or beside one of {', '.join(_DELEGATES)}", named)


def run_delegations(
    state: StoryState,
    fsm: FsmConfig,
    names: Sequence[str],
    *,
    councils: Collection[str],
    by: Principal,
    now_ms: int,
    new_id: Callable[[str, str], EntityId],
) -> tuple[RunDelegation, ...]:
    """One delegation for each gate of the roles that are named; none without names.

    A council has the gates of the roles that are not named beside it.

    Args:
        councils: roles that councils may be of.
        new_id: makes the id of a delegation of its prefix and name.

    Raises:
        InvalidInput: as `check_delegates`.
        PolicyDenied: the caller is no person, or a gate may not be delegated at the rigor of the story.
    """
    check_delegates(names, councils)
    if names and not by.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    found: list[RunDelegation] = []
    for name, roles in _shares(names):
        council = name.removeprefix(COUNCIL) if name.startswith(COUNCIL) else None
        for gate in [n for n in fsm.gates if fsm.gate(state.lifecycle, n).role in roles and n in _RUN_GATES]:
            check_delegable(fsm, state.lifecycle, gate, state.rigor)
            found.append(
                RunDelegation(
                    delegation_id=new_id("dg", f"start/{gate}"),
                    gate=gate,
                    delegate=_of_council(council) if council else _DELEGATES[name],
                    granted_by=by,
                    max_rigor=state.rigor,
                    valid_until=now_ms + DELEGATION_S * 1000,
                    reason=f"unattended run: --yes {name}",
                    council=council,
                )
            )
    return tuple(found)


def _shares(names: Sequence[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Each delegate once, with the roles whose gates it has."""
    for name in dict.fromkeys(names):
        yield name, frozenset({name} if name in _DELEGATES else set(_DELEGATES) - set(names))


def _of_council(role: str) -> Principal:
    return Principal(f"agent:{role}-{COUNCIL_SEAT:03d}")


def _refused(text: str, allowed: Sequence[str]) -> InvalidInput:
    return InvalidInput(text, field="delegate", allowed=list(allowed))


def taken_in(
    state: StoryState, fsm: FsmConfig, standing: Iterable[StandingDelegation], *, now_ms: int
) -> tuple[RunDelegation, ...]:
    """The standing delegations that hold for the story now, each limited by the cap of its gate."""
    fitting = [one for one in standing if one.holds(now_ms=now_ms) and one.covers(state.project_id)]
    return tuple(taken for one in fitting if (taken := _taken_in(state, fsm, one)) is not None)


def _taken_in(state: StoryState, fsm: FsmConfig, standing: StandingDelegation) -> RunDelegation | None:
    granted, lifecycle = standing.granted, fsm.lifecycles[state.lifecycle]
    if granted.gate not in fsm.gates and granted.gate not in lifecycle.gates:
        return None
    cap = fsm.gate(state.lifecycle, granted.gate).delegable_up_to
    if cap is None:
        return None
    furthest = RIGORS[min(RIGORS.index(cap), RIGORS.index(granted.max_rigor))]
    if RIGORS.index(state.rigor) > RIGORS.index(furthest):
        return None
    role = granted.delegate.removeprefix(COUNCIL)
    return RunDelegation(
        delegation_id=granted.delegation_id,
        gate=granted.gate,
        delegate=_of_council(role),
        granted_by=granted.granted_by,
        max_rigor=furthest,
        valid_until=granted.valid_until,
        reason=granted.reason,
        council=role if role != granted.delegate else None,
    )


def revocation_of(platform: PlatformState, delegation: RunDelegation) -> DelegationRevoked | None:
    """What a story has to say when a standing delegation of it was revoked; None while it holds.

    The platform does not know those of a run, which end with it.
    """
    known = platform.delegations.get(delegation.delegation_id)
    if known is None or known.revoked_ms is None:
        return None
    return revoked(known.granted, known.why_revoked)


def revoked(granted: DelegationGranted, reason: str) -> DelegationRevoked:
    """The record that a delegation holds no more."""
    return DelegationRevoked(**granted.model_dump(exclude={"reason"}), reason=reason)


def gate_council(state: StoryState, approval_id: str) -> CouncilRecord | None:
    """The council that was convened on this request, whatever came of it; None before there is one."""
    return next((c for c in state.councils.values() if c.opened.approval_id == approval_id), None)


def delegated_intents(
    state: StoryState, approval: Approval, subject: Subject, *, now_ms: int, task_id: str | None = None
) -> tuple[Intent, ...]:
    """What is owed for a request that waits; empty where a person is to decide.

    A council is convened once for each request. It rejects, or comes to nothing, or is cancelled: then a person
    decides, for only a yes is delegated; nor is another one asked when the same request is made again.
    """
    request = approval.request
    delegation = delegation_for(state, request.gate, now_ms=now_ms)
    if approval.status != "requested" or delegation is None:
        return ()
    decide = DecideGate(gate=request.gate, approval_id=request.approval_id, task_id=task_id)
    if delegation.council is None:
        return (decide,) if supporting_fact(state, subject) else ()
    council = gate_council(state, request.approval_id)
    if council is None and _was_denied(state, approval):
        return ()
    if council is None:
        return (OpenGateCouncil(gate=request.gate, approval_id=request.approval_id),)
    return (decide,) if council.verdict == "approve" else ()


def _was_denied(state: StoryState, approval: Approval) -> bool:
    """Whether a council had this gate and subject before and did not say yes: asking until one does is no consent."""
    wanted = (approval.request.gate, approval.request.subject.digest)
    for council in state.councils.values():
        earlier = state.approvals.get(council.opened.approval_id or "")
        is_same = earlier is not None and (earlier.request.gate, earlier.request.subject.digest) == wanted
        if is_same and (council.verdict == "reject" or council.status == "UNDECIDED"):
            return True
    return False
