"""What commands on the fleet as a whole record: a pause and its end (PL-50). Decided on the platform's stream alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleet.errors import InvalidInput, InvalidTransition, PolicyDenied
from fleet.events import FleetPaused, FleetResumed, Payload
from fleet.ids import EntityId
from fleet.planning import PlatformState
from fleet.ports import Command
from fleet.story import Caller, check_notes

__all__ = ["PLATFORM_COMMANDS", "Decide", "platform_result"]

Decide = Callable[[PlatformState, Command, Caller], tuple[Payload, ...]]


def _needs_admin(caller: Caller) -> None:
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


def _pause(state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """No step of the scope starts from here on."""
    _needs_admin(caller)
    project = _project(command)
    if _is_paused(state, project):
        raise _not_now(project, "pause", "paused already")
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    return (FleetPaused(scope="project" if project else "fleet", id=project, by=caller.principal, reason=reason),)


def _resume(state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Steps of the scope may start again; a project that is paused itself stays so when the fleet goes on."""
    _needs_admin(caller)
    project = _project(command)
    if not _is_paused(state, project):
        raise _not_now(project, "resume", "not paused")
    text = str(command.body.get("note") or "")
    note = check_notes(text, "note") if text.strip() else ""
    return (FleetResumed(scope="project" if project else "fleet", id=project, by=caller.principal, reason=note),)


def _is_paused(state: PlatformState, project: EntityId | None) -> bool:
    return state.pause is not None if project is None else project in state.project_pauses


def _not_now(project: EntityId | None, event: str, what: str) -> InvalidTransition:
    name = f"project {project}" if project else "the fleet"
    return InvalidTransition(f"{name} is {what}", state=what, event=event, allowed=[])


def platform_result(state: PlatformState, command: Command) -> dict[str, Any]:
    """What a command answers with: the version of the platform's stream, and whether all of it is paused."""
    return {"version": state.version, "is_paused": state.pause is not None}


PLATFORM_COMMANDS: Mapping[str, Decide] = {"pause_fleet": _pause, "resume_fleet": _resume}
