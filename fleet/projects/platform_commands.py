"""Gates that a person delegates for all stories to come: granted and revoked on the platform's stream (LC-77)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.events.payload import Payload
from fleet.events.platform import DelegationGranted
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId, derive_id
from fleet.log.port import Command
from fleet.owner.council_pools import PoolRules
from fleet.planning.platform_state import PLATFORM, PlatformState
from fleet.policy.roles import RolesConfig
from fleet.story.approvals import check_delegable, check_notes
from fleet.story.commands.command import Caller
from fleet.story.delegation import COUNCIL, DELEGATION_S, revoked
from fleet.story.lifecycle import RIGORS, FsmConfig


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
    return (revoked(known.granted, check_notes(text, "reason") if text.strip() else ""),)


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
