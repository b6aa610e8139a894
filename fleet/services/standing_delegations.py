"""Gates that a person delegates for all stories to come: granted and revoked on the platform's stream (LC-77, AP-94).

A story takes in those that hold when it is started, so that what it is worked on under stands in its own stream; when
its owner meets one that was revoked since, it says so there too, and the gate waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.events import DelegationGranted, DelegationRevoked, Payload, RunDelegation
from fleet.ids import EntityId, Principal, derive_id
from fleet.planning import PLATFORM, PlatformState, StandingDelegation
from fleet.ports import Command
from fleet.services.council_pools import PoolRules
from fleet.services.run_delegations import COUNCIL, COUNCIL_SEAT, DELEGATION_S
from fleet.services.workbench import Workbench
from fleet.story import RIGORS, Caller, FsmConfig, check_delegable, check_notes
from fleet.tools import RolesConfig

__all__ = [
    "DelegationRules",
    "agent_roles",
    "grant_delegation",
    "revoke_delegation",
    "revoked_since",
    "standing_delegations",
]


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
    if not caller.roles & {"admin", "po"}:
        raise PolicyDenied(
            f"{caller.principal} holds neither role 'admin' nor 'po'", rule_id="role_not_held", allowed="admin po"
        )


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
