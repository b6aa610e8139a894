"""What commands on the fleet as a whole record: a pause and its end, delegations, pools (PL-50, LC-77, CN-16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleet.errors import InvalidInput, InvalidTransition, PolicyDenied
from fleet.events import AccessDenied, FleetPaused, FleetResumed, OverrideUsed, Payload
from fleet.ids import EntityId, derive_id
from fleet.planning import PLATFORM, PlatformState
from fleet.ports import Command
from fleet.services.council_agents import register_agent, unregister_agent
from fleet.services.council_pools import remove_council_pool, set_council_pool
from fleet.services.standing_delegations import DelegationRules, grant_delegation, revoke_delegation
from fleet.story import Caller, check_notes

__all__ = ["PLATFORM_COMMANDS", "Decide", "needs_admin", "platform_result"]

Decide = Callable[[DelegationRules, PlatformState, Command, Caller], tuple[Payload, ...]]


def needs_admin(caller: Caller) -> None:
    """Returns when the caller is an admin; PolicyDenied else (RT-24)."""
    if "admin" not in caller.roles:
        raise PolicyDenied(f"{caller.principal} does not hold role 'admin'", rule_id="role_not_held", allowed="admin")


def _project(command: Command) -> EntityId | None:
    """The project that is meant; None for the whole fleet."""
    named: Any = command.body.get("project_id")
    if named is None:
        return None
    if not isinstance(named, str) or not named.startswith("pr-"):
        raise InvalidInput("project_id names no project, such as pr-default", field="project_id")
    return EntityId(named)


def _pause(_: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """No step of the scope starts from here on."""
    needs_admin(caller)
    project = _project(command)
    if _is_paused(state, project):
        raise _not_now(project, "pause", "paused already")
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    return (FleetPaused(scope="project" if project else "fleet", id=project, by=caller.principal, reason=reason),)


def _resume(_: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Steps of the scope may start again; a project that is paused itself stays so when the fleet goes on."""
    needs_admin(caller)
    project = _project(command)
    if not _is_paused(state, project):
        raise _not_now(project, "resume", "not paused")
    text = str(command.body.get("note") or "")
    note = check_notes(text, "note") if text.strip() else ""
    return (FleetResumed(scope="project" if project else "fleet", id=project, by=caller.principal, reason=note),)


def _set_pool(rules: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    return set_council_pool(rules.pools, state, command, caller)


def _remove_pool(rules: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    return remove_council_pool(rules.pools, state, command, caller)


def _register_agent(
    rules: DelegationRules, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    return register_agent(rules.pools, state, command, caller)


def _unregister_agent(
    _: DelegationRules, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    return unregister_agent(state, command, caller)


def _denial(_: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Somebody asked for what is hidden from it; only a front sends this, and for nobody but the caller (CX-16)."""
    action, what, rule = (str(command.body.get(name) or "")[:200] for name in ("action", "object", "rule_id"))
    return (AccessDenied(principal=caller.principal, action=action, object=what, rule_id=rule),)


def _override(_: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Somebody read what is hidden from it because of an incident; a front sends this before it answers (CX-18)."""
    if not caller.roles & {"po", "architect"}:
        raise PolicyDenied(
            f"{caller.principal} holds neither role 'po' nor 'architect'",
            rule_id="role_not_held",
            allowed=["po", "architect"],
        )
    action, what = (str(command.body.get(name) or "")[:200] for name in ("action", "object"))
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    return (OverrideUsed(principal=caller.principal, action=action, object=what, rule_id="CX-18", reason=reason),)


def _is_paused(state: PlatformState, project: EntityId | None) -> bool:
    return state.pause is not None if project is None else project in state.project_pauses


def _not_now(project: EntityId | None, event: str, what: str) -> InvalidTransition:
    name = f"project {project}" if project else "the fleet"
    return InvalidTransition(f"{name} is {what}", state=what, event=event, allowed=[])


def platform_result(state: PlatformState, command: Command) -> dict[str, Any]:
    """What a command answers with: the version of the platform's stream, and what became of what it is about."""
    found: dict[str, Any] = {"version": state.version, "is_paused": state.pause is not None}
    if command.name == "grant_delegation":
        found["delegation_id"] = derive_id("dg", PLATFORM, command.command_id)
    if command.name == "register_agent":
        made = (name for name, agent in state.agents.items() if agent.command_id == command.command_id)
        found["agent_id"] = next(made, None)
    return found


PLATFORM_COMMANDS: Mapping[str, Decide] = {
    "pause_fleet": _pause,
    "resume_fleet": _resume,
    "grant_delegation": grant_delegation,
    "revoke_delegation": revoke_delegation,
    "set_council_pool": _set_pool,
    "remove_council_pool": _remove_pool,
    "register_agent": _register_agent,
    "unregister_agent": _unregister_agent,
    "record_denial": _denial,
    "record_override": _override,
}
