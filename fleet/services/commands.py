"""Commands on stories, decided by the owner of the story and by nobody else (EV-17)."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fleet.errors import (
    GateClosed,
    InvalidInput,
    InvalidTransition,
    PolicyDenied,
    StoryNotFound,
    VersionConflict,
)
from fleet.events import Payload, RepoSource, RunDelegation, StoryStarted, StoryTransitioned
from fleet.ids import Digest, Principal
from fleet.ports import Command
from fleet.services.create_story import created_events
from fleet.services.procedures.gates import fix_task
from fleet.services.step_records import finished_effect
from fleet.services.workbench import Workbench
from fleet.story import Caller, cancel, check_delegable, decide_gate, fire, refusal, resolve_step, unpark

__all__ = ["COMMANDS", "CommandHandler"]

RolesOf = Callable[[Principal], frozenset[str]]
DELEGATION_S = 30 * 24 * 3600
"""How long a delegation of a run holds at most (LC-77)."""
_TRIES = 3


class CommandHandler:
    """Turns one command into events of its story. The same command id never records twice."""

    def __init__(self, *, roles_of: RolesOf, coach: Any, config_digests: Mapping[str, Digest]) -> None:
        self._roles_of, self._coach, self._config = roles_of, coach, config_digests

    async def handle(self, bench: Workbench, command: Command) -> dict[str, Any]:
        """The result of the command: story id, version and state. Raises what the domain refuses."""
        if not bench.journal.knows(command.command_id):
            decide = COMMANDS.get(command.name)
            if decide is None:
                raise InvalidInput(f"there is no command {command.name!r}", allowed=sorted(COMMANDS))
            if not bench.journal.exists and command.name != "create_story":
                raise StoryNotFound(f"there is no story {bench.journal.story_id}", story_id=bench.journal.story_id)
            await self._record(bench, command, decide)
        state = bench.state
        return {
            "story_id": state.story_id,
            "version": state.version,
            "state": state.state,
            "disposition": state.disposition,
            "score": state.score.score if state.score else None,
            "dor_ok": state.score.dor_ok if state.score else False,
        }

    async def _record(self, bench: Workbench, command: Command, decide: Decide) -> None:
        caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))
        for attempt in range(1, _TRIES + 1):
            try:
                payloads = await decide(self, bench, command, caller)
            except GateClosed as error:
                record = refusal(bench.state, error, caller)
                # Not under the command's own id: a known id means that the command was carried out.
                name = hashlib.sha256(command.command_id.encode()).hexdigest()[:32]
                await bench.journal.record(f"refused/{name}", record, actor=caller.principal)
                raise
            closes = command.name == "cancel"
            try:
                await bench.journal.record_command(command.command_id, payloads, actor=caller.principal, closes=closes)
            except VersionConflict:
                # The stream had grown; the journal has reloaded it, so the command is decided on what is there (LC-8).
                if attempt == _TRIES:
                    raise
            else:
                return

    async def create(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A new story with its score, in its first state (LC-12, SC-31)."""
        _needs(caller, "po")
        if bench.journal.exists:
            raise InvalidTransition(
                f"story {bench.journal.story_id} exists already",
                state=bench.state.state,
                event="create_story",
                allowed=[],
            )
        return created_events(
            command.body.get("story"), caller=caller, rules=bench.rules, coach=self._coach, config=self._config
        )

    async def start(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """The story may be worked on: on which repository, with which model, with which gates delegated."""
        _needs(caller, "po")
        state, body = bench.state, command.body
        if state.start is not None or state.closed or state.disposition != "active":
            raise InvalidTransition(
                f"story {state.story_id} was started already; `fleet resume` continues it",
                state=state.state,
                event="start",
                allowed=[],
            )
        repo = body.get("repo")
        if not isinstance(repo, str) or not repo:
            raise InvalidInput("start needs the path of a repository", field="repo")
        return (
            StoryStarted(
                repo=RepoSource(provider="local", url=repo, ref=body.get("ref")),
                model=body.get("model"),
                toolchain=body.get("toolchain") or "python",
                delegations=_delegations(bench, command, caller),
                record=bool(body.get("record")),
            ),
        )

    async def approve(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A pending approval is granted."""
        name, notes = _gate_name(command), str(command.body.get("notes") or "")
        return decide_gate(
            bench.state, bench.rules.fsm, name, approve=True, caller=caller, now_ms=bench.now_ms, notes=notes
        )

    async def reject(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A pending approval is rejected, with a reason."""
        name, reason = _gate_name(command), str(command.body.get("reason") or "")
        return decide_gate(
            bench.state, bench.rules.fsm, name, approve=False, caller=caller, now_ms=bench.now_ms, notes=reason
        )

    async def transition(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """An event of the lifecycle is fired."""
        event, reason = str(command.body.get("event")), str(command.body.get("reason") or "")
        moved = fire(bench.state, bench.rules.fsm, event, caller=caller, now_ms=bench.now_ms, reason=reason)
        last = moved[-1]
        if isinstance(last, StoryTransitioned) and last.loopback and last.to == "BUILD":
            number = sum(bench.state.loopbacks.values()) + 1
            return (*moved, *fix_task(bench, f"loopback/{event}/{number}", reason.strip()))
        return moved

    async def unpark(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A parked story goes on."""
        _needs(caller, "po")
        return unpark(bench.state, caller=caller, note=str(command.body.get("note") or ""))

    async def resolve(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """A person says whether an unknown step happened; one that did has its result by that (RC-52, AP-86)."""
        _needs(caller, "po", "devops")
        body = command.body
        resolved = resolve_step(
            bench.state,
            str(body.get("step_id") or ""),
            outcome=str(body.get("outcome") or ""),
            caller=caller,
            note=str(body.get("note") or ""),
        )
        if resolved.outcome == "not_happened":
            return (resolved,)
        result = {"outcome": resolved.outcome, "by": resolved.by, "note": resolved.note}
        return (resolved, await finished_effect(bench.blobs, resolved.step_id, result, reason="resolved"))

    async def cancel(self, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
        """The story is given up."""
        _needs(caller, "po")
        return cancel(bench.state, reason=str(command.body.get("reason") or ""))


Decide = Callable[[CommandHandler, Workbench, Command, Caller], Awaitable[tuple[Payload, ...]]]
COMMANDS: Mapping[str, Decide] = {
    "create_story": CommandHandler.create,
    "start_story": CommandHandler.start,
    "approve": CommandHandler.approve,
    "reject": CommandHandler.reject,
    "transition": CommandHandler.transition,
    "unpark": CommandHandler.unpark,
    "resolve_step": CommandHandler.resolve,
    "cancel": CommandHandler.cancel,
}


def _needs(caller: Caller, *roles: str) -> None:
    if not caller.roles & {*roles}:
        wanted = " or ".join(repr(r) for r in roles)
        raise PolicyDenied(f"{caller.principal} does not hold role {wanted}", rule_id="LC-11", allowed=" ".join(roles))


def _gate_name(command: Command) -> str:
    name = command.body.get("gate")
    if not isinstance(name, str) or not name:
        raise InvalidInput("name the gate or the approval id", field="gate")
    return name


_DELEGATES = {"po": Principal("agent:reviewer-001"), "qa": Principal("agent:qa-002")}


def _delegations(bench: Workbench, command: Command, caller: Caller) -> tuple[RunDelegation, ...]:
    roles: list[str] = command.body.get("delegate") or []
    unknown = [r for r in roles if r not in _DELEGATES]
    if unknown:
        raise InvalidInput(
            f"role {unknown[0]!r} cannot be delegated; allowed: {', '.join(_DELEGATES)}",
            field="delegate",
            allowed=list(_DELEGATES),
        )
    if roles and not caller.principal.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    state, fsm = bench.state, bench.rules.fsm
    names = [*fsm.gates]
    found: list[RunDelegation] = []
    for role in roles:
        gates = [n for n in names if fsm.gate(state.lifecycle, n).role == role and n in _RUN_GATES]
        for name in gates:
            check_delegable(fsm, state.lifecycle, name, state.rigor)
            found.append(
                RunDelegation(
                    delegation_id=bench.new_id("dg", f"start/{name}"),
                    gate=name,
                    delegate=_DELEGATES[role],
                    granted_by=caller.principal,
                    max_rigor=state.rigor,
                    valid_until=bench.now_ms + DELEGATION_S * 1000,
                    reason=f"unattended run: --yes {role}",
                )
            )
    return tuple(found)


_RUN_GATES = frozenset(
    {"approve_scope", "approve_plan", "approve_design", "qa_passed", "docs_ready", "task_acceptance"}
)
"""The gates that every run passes, and that `--yes` therefore delegates."""
