"""Gates that a person delegates for all stories to come: granted and revoked on the platform's stream (LC-77, AP-94).

A story takes in those that hold when it is started, so that what it is worked on under stands in its own stream; when
its owner meets one that was revoked since, it says so there too, and the gate waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.events.payload import Payload
from fleet.events.platform import DelegationGranted, DelegationRevoked
from fleet.events.story import RunDelegation
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId, Principal, derive_id
from fleet.log.port import Command
from fleet.owner.council_pools import PoolRules, sitting_roles
from fleet.owner.workbench import Workbench
from fleet.planning.platform_state import PLATFORM, PlatformState, StandingDelegation
from fleet.policy.roles import RolesConfig
from fleet.story.approvals import check_delegable, check_notes
from fleet.story.commands.command import Caller
from fleet.story.lifecycle import RIGORS, FsmConfig

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


def run_delegations(bench: Workbench, command: Command, caller: Caller) -> tuple[RunDelegation, ...]:
    """One delegation for each gate of the roles in `delegate` of the body; none without roles.

    A council has the gates of the roles that are not named beside it.

    Raises:
        InvalidInput: as `check_delegates`; agents of this fleet serve no such role.
        PolicyDenied: the caller is no person, or a gate may not be delegated at the rigor of the story.
    """
    names: list[str] = command.body.get("delegate") or []
    check_delegates(names, sitting_roles(bench))
    if names and not caller.principal.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    state, fsm = bench.state, bench.rules.fsm
    found: list[RunDelegation] = []
    for name, roles in _shares(names):
        council = name.removeprefix(COUNCIL) if name.startswith(COUNCIL) else None
        for gate in [n for n in fsm.gates if fsm.gate(state.lifecycle, n).role in roles and n in _RUN_GATES]:
            check_delegable(fsm, state.lifecycle, gate, state.rigor)
            found.append(
                RunDelegation(
                    delegation_id=bench.new_id("dg", f"start/{gate}"),
                    gate=gate,
                    delegate=Principal(f"agent:{council}-{COUNCIL_SEAT:03d}") if council else _DELEGATES[name],
                    granted_by=caller.principal,
                    max_rigor=state.rigor,
                    valid_until=bench.now_ms + DELEGATION_S * 1000,
                    reason=f"unattended run: --yes {name}",
                    council=council,
                )
            )
    return tuple(found)


def _shares(names: Sequence[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Each delegate once, with the roles whose gates it has."""
    for name in dict.fromkeys(names):
        yield name, frozenset({name} if name in _DELEGATES else set(_DELEGATES) - set(names))


def _refused(text: str, allowed: Sequence[str]) -> InvalidInput:
    return InvalidInput(text, field="delegate", allowed=list(allowed))


@dataclass(frozen=True, slots=True)
class DelegationRules:
    """What may be delegated, and to whom; and what a pool has to fit into.

    Args:
        delegates: roles that agents may have.
        now_ms: the clock's reading.
        pools: rules of pools, for whoever takes commands on them.
    """

    fsm: FsmConfig
    delegates: tuple[str, ...]
    now_ms: Callable[[], int]
    pools: PoolRules | None = None


def agent_roles(config: RolesConfig) -> tuple[str, ...]:
    """The roles that agents may have, sorted."""
    return tuple(sorted(name for name, role in config.roles.items() if role.actor != "human"))


# On the platform's stream.


def grant_delegation(
    rules: DelegationRules, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    """What delegating a gate records. PolicyDenied for a gate marked never, and above the cap of the gate."""
    _needs_person(caller)
    body = command.body
    gate, max_rigor = str(body.get("gate") or ""), str(body.get("max_rigor") or "")
    delegate = str(body.get("delegate") or "")
    allowed = (*rules.delegates, *_councils(rules))
    if delegate not in allowed:
        raise _not_allowed("delegate", delegate, allowed)
    if max_rigor not in RIGORS:
        raise _not_allowed("max_rigor", max_rigor, RIGORS)
    _check_gate(rules.fsm, gate, max_rigor)
    granted = DelegationGranted(
        delegation_id=derive_id("dg", PLATFORM, command.command_id),
        gate=gate,
        delegate=delegate,
        granted_by=caller.principal,
        reason=check_notes(str(body.get("reason") or ""), "reason"),
        valid_until=_end(body.get("valid_until"), rules.now_ms()),
        max_rigor=max_rigor,
        projects=_projects(body.get("projects")),
    )
    return (granted,)


def _councils(rules: DelegationRules) -> tuple[str, ...]:
    """`council:<role>` for each role of which agents of this fleet may sit in councils."""
    if rules.pools is None:
        return ()
    staffed = rules.pools.staffed
    return tuple(f"{COUNCIL}{role}" for role in rules.pools.roles.assignable if staffed is None or role in staffed)


def revoke_delegation(
    rules: DelegationRules, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    """What taking a delegation back records."""
    _needs_person(caller)
    name, text = str(command.body.get("delegation_id") or ""), str(command.body.get("reason") or "")
    known = state.delegations.get(name)
    if known is None:
        raise NotFound(f"there is no delegation {name[:80]!r}", delegation_id=name[:80])
    if not known.holds(now_ms=rules.now_ms()):
        is_now = "revoked already" if known.revoked_ms is not None else "over"
        raise InvalidTransition(f"delegation {name} is {is_now}", state=is_now, event="revoke", allowed=[])
    return (_revoked(known.granted, check_notes(text, "reason") if text.strip() else ""),)


def _needs_person(caller: Caller) -> None:
    if not caller.principal.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    caller.require("admin", "po")


def _check_gate(fsm: FsmConfig, name: str, max_rigor: str) -> None:
    """Returns when some lifecycle lets the gate be delegated that far; each story keeps to its own besides."""
    lifecycles = [key for key, one in fsm.lifecycles.items() if name in fsm.gates or name in one.gates]
    if not lifecycles:
        known = {*fsm.gates, *(gate for one in fsm.lifecycles.values() for gate in one.gates)}
        raise _not_allowed("gate", name, sorted(known))
    refused: PolicyDenied | None = None
    for lifecycle in lifecycles:
        try:
            check_delegable(fsm, lifecycle, name, max_rigor)
        except PolicyDenied as error:
            refused = error
        else:
            return
    assert refused is not None
    raise refused


def _not_allowed(field: str, value: str, allowed: Any) -> InvalidInput:
    return InvalidInput(
        f"{field} {value[:80]!r} is none of {', '.join(allowed)}", field=field, value=value[:80], allowed=list(allowed)
    )


def _end(value: Any, now_ms: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not now_ms < value <= now_ms + DELEGATION_S * 1000:
        raise InvalidInput("valid_until lies in the future, and at most 30 days ahead", field="valid_until")
    return value


def _projects(value: Any) -> tuple[EntityId, ...]:
    names: list[Any] = list(value or ()) if isinstance(value, list | tuple | None) else [None]  # pyright: ignore[reportUnknownArgumentType]
    if any(not isinstance(name, str) or not name.startswith("pr-") for name in names):
        raise InvalidInput("projects is a list of ids such as pr-default", field="projects")
    return tuple(EntityId(name) for name in dict.fromkeys(names))


def _revoked(granted: DelegationGranted, reason: str) -> DelegationRevoked:
    return DelegationRevoked(**granted.model_dump(exclude={"reason"}), reason=reason)


# In a story.


async def standing_delegations(bench: Workbench) -> tuple[RunDelegation, ...]:
    """Those that hold for the story now, each no further than the gate's own cap in its lifecycle."""
    platform, state = bench.journal.platform, bench.state
    if platform is None:
        return ()
    found = (await platform.state()).delegations.values()
    fitting = [one for one in found if one.holds(now_ms=bench.now_ms) and one.covers(state.project_id)]
    return tuple(taken for one in fitting if (taken := _taken_in(bench, one)) is not None)


def _taken_in(bench: Workbench, standing: StandingDelegation) -> RunDelegation | None:
    state, granted, fsm = bench.state, standing.granted, bench.rules.fsm
    lifecycle = fsm.lifecycles[state.lifecycle]
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
        delegate=Principal(f"agent:{role}-{COUNCIL_SEAT:03d}"),
        granted_by=granted.granted_by,
        max_rigor=furthest,
        valid_until=granted.valid_until,
        reason=granted.reason,
        council=role if role != granted.delegate else None,
    )


async def revoked_since(bench: Workbench, delegation: RunDelegation) -> DelegationRevoked | None:
    """What the story has to say when a standing delegation of it was revoked; None while it holds.

    The platform does not know those of a run, which end with it.
    """
    platform = bench.journal.platform
    known = (await platform.state()).delegations.get(delegation.delegation_id) if platform is not None else None
    return _revoked(known.granted, known.why_revoked) if known is not None and known.revoked_ms is not None else None
