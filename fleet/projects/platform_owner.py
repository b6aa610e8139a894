"""Answers commands on the fleet as a whole: any shard may, for the stream is claimed for one append only (EV-17)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleet.audit.port import Losses
from fleet.events.payload import Payload
from fleet.events.platform import AccessDenied, FleetPaused, FleetResumed, OverrideUsed
from fleet.kernel.errors import InvalidInput, InvalidTransition, StoreUnavailable
from fleet.kernel.ids import EntityId, Principal, StreamId, derive_id
from fleet.log.port import Command, EventLog
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.council_pools import remove_council_pool, set_council_pool
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM, PlatformState
from fleet.projects.ceremonies import register_agent, unregister_agent
from fleet.projects.platform_commands import DelegationRules, grant_delegation, revoke_delegation
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller

Decide = Callable[[DelegationRules, PlatformState, Command, Caller], tuple[Payload, ...]]


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
    caller.require("admin")
    project = _project(command)
    if _is_paused(state, project):
        raise _not_now(project, "pause", "paused already")
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    return (FleetPaused(scope="project" if project else "fleet", id=project, by=caller.principal, reason=reason),)


def _resume(_: DelegationRules, state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Steps of the scope may start again; a project that is paused itself stays so when the fleet goes on."""
    caller.require("admin")
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
    caller.require("po", "architect", listed=True)
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


_ACCEPT_LOSS = "accept_loss"


class PlatformOwner:
    """Writes the platform's stream.

    Args:
        view: of the stream, which is read anew for each decision.
        rules: of delegations.
        losses: where a person gives up what a stream lost; None while there is no notary to sign it.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        claims: BriefClaims,
        view: PlatformView,
        rules: DelegationRules,
        roles_of: Callable[[Principal], frozenset[str]],
        losses: Losses | None = None,
    ) -> None:
        self._log, self._claims, self._view, self._rules, self._roles_of = log, claims, view, rules, roles_of
        self._losses = losses

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command. Raises what the domain refuses, and LeaseHeld while another owner is at it."""
        caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))
        if command.name == _ACCEPT_LOSS:
            return await self._accept_loss(command, caller)
        decide = PLATFORM_COMMANDS.get(command.name)
        if decide is None:
            known = sorted([*PLATFORM_COMMANDS, _ACCEPT_LOSS])
            raise InvalidInput(f"there is no command {command.name!r}", allowed=known)
        if command.command_id not in await self._log.commands(PLATFORM):

            async def payloads() -> Sequence[Payload]:
                return decide(self._rules, await self._view.state(), command, caller)

            await self._claims.record(
                PLATFORM, command.command_id, payloads, actor=command.principal, trace_id=command.trace_id
            )
        return platform_result(await self._view.state(), command)

    async def _accept_loss(self, command: Command, caller: Caller) -> dict[str, Any]:
        """The signed record of the notary, which no event repeats: the stream in question may be the platform's own.

        Raises PolicyDenied for all but admins, and as `Losses.accept`.
        """
        caller.require("admin")
        if self._losses is None:
            raise StoreUnavailable("no notary is wired to this shard: use `fleet accept-loss`")
        stream, reason = StreamId(str(command.body.get("stream") or "")), str(command.body.get("reason") or "")
        done = await self._losses.accept(stream, by=caller.principal, reason=reason, command_id=command.command_id)
        return {"is_new": done.is_new, "loss": done.loss.model_dump(mode="json")}

    async def work(self) -> None:
        """Returns at once: the platform owes nothing beside commands."""
