"""Owns projects for the moment of each command, and does what they owe beside that (EV-17, GL-19).

A project's stream is claimed for one append at a time, so that any shard may answer. What takes long, which is asking
models, is done without the stream and recorded under a command id that is always the same: whoever does it again
after a crash comes to one recorded outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fleet.events.payload import Payload
from fleet.kernel.clock import Clock
from fleet.kernel.errors import (
    InvalidInput,
    LeaseHeld,
    LogCorrupted,
    OwnershipLost,
    UnsupportedSchema,
    VersionConflict,
)
from fleet.kernel.ids import SYSTEM, CommandId, Principal, StreamId
from fleet.log.port import Command, EventLog, Inbox, LeaseStore
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.platform_view import PlatformView
from fleet.planning.backlog_review import review_unit
from fleet.planning.project_state import ProjectState, fold_project
from fleet.projects.ceremonies import CEREMONY_COMMANDS, consent_of
from fleet.projects.discover import Discoverer
from fleet.projects.project_commands import PROJECT_COMMANDS, Decide, Deciding, follow_ups, project_result
from fleet.projects.review import Reviewer
from fleet.story.commands.command import Caller
from fleet.story.evolve.story import fold

_COMMANDS: Mapping[str, Decide] = {**PROJECT_COMMANDS, **CEREMONY_COMMANDS}
Work = Callable[[], Awaitable[Payload]]
_TRIES = 5
_PAUSE_S = 0.5
_WORK_S = 300
"""How long one piece of work may take before another shard may begin with it too."""


async def project_state(log: EventLog, project_id: str) -> ProjectState:
    """The project as recorded now; `exists` is false for one that nobody created."""
    return fold_project(project_id, await log.read(StreamId(f"project:{project_id}")))


class ProjectOwner:
    """Answers commands on projects.

    Args:
        owner: `<shard>/<incarnation>` for the leases.
        discoverer: asks models for better proposals; None leaves those of the rules.
        reviewer: has stories of a backlog review reviewed; None leaves them without.
        platform: says what is paused; None pauses nothing.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        leases: LeaseStore,
        inbox: Inbox,
        clock: Clock,
        owner: str,
        roles_of: Callable[[Principal], frozenset[str]],
        deciding: Deciding,
        discoverer: Discoverer | None = None,
        reviewer: Reviewer | None = None,
        platform: PlatformView | None = None,
        ttl_s: int = 15,
    ) -> None:
        self._log, self._leases, self._inbox, self._clock = log, leases, inbox, clock
        self._roles_of, self._deciding = roles_of, deciding
        self._discoverer, self._reviewer, self._platform = discoverer, reviewer, platform
        self._claims = BriefClaims(log, leases, clock, owner, ttl_s)
        self._states: dict[StreamId, ProjectState] = {}

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command; what follows from it on stories is queued by then, also when it comes again.

        Raises what the domain refuses, and LeaseHeld while another owner is at the project.
        """
        decide = _COMMANDS.get(command.name)
        if decide is None:
            raise InvalidInput(f"there is no command {command.name!r}", allowed=sorted(_COMMANDS))
        if command.command_id not in await self._log.commands(command.stream):
            caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))

            async def payloads(state: ProjectState) -> tuple[Payload, ...]:
                return await decide(self._deciding, state, command, caller)

            await self._record(command.stream, command.command_id, payloads, actor=command.principal, command=command)
        state = await self._state(command.stream)
        for following in (
            *await follow_ups(self._deciding, state, command),
            *await self._cancels(command),
            *await consent_of(self._deciding, state, command),
        ):
            await self._inbox.submit(following)
        return project_result(state, command)

    async def _cancels(self, command: Command) -> tuple[Command, ...]:
        """With an epic its open stories are cancelled, one by one (PL-4)."""
        if command.name != "update_epic" or command.body["changes"].get("status") != "cancelled":
            return ()
        body = {"reason": command.body["reason"]}
        found: list[Command] = []
        for stream in [s for s in await self._log.streams() if s.startswith("story:")]:
            try:
                story = fold(await self._log.read(stream))
            except (LogCorrupted, UnsupportedSchema):
                continue  # what cannot be read cannot be cancelled either, and stops none of the others
            if story is None or story.epic_id != command.body["epic_id"] or story.is_over:
                continue
            command_id = CommandId(f"{command.principal}/{stream.entity}/cancel-with-epic")
            found.append(replace(command, command_id=command_id, stream=stream, name="cancel", body=body))
        return tuple(found)

    async def work(self) -> None:
        """Whatever projects owe is done, one after the other."""
        for stream in await self._log.open_streams():
            if not stream.startswith("project:") or not self._owed(await self._state(stream)):
                continue
            if self._platform is not None and await self._platform.pause_of(stream.entity):
                continue
            with suppress(LeaseHeld, OwnershipLost):
                async with self._claims.leased(_work_on(stream), ttl_s=_WORK_S) as lease:
                    # One after the other, each decided on what is recorded by then.
                    done: set[str] = set()
                    while left := [o for o in self._owed(await self._state(stream)) if o[0] not in done]:
                        name, work = left[0]
                        await self._settle(stream, CommandId(name), await work())
                        await self._leases.renew(lease)
                        done.add(name)

    def _owed(self, state: ProjectState) -> list[tuple[str, Work]]:
        """What the project owes: the command id under which each is recorded, and how it is done."""
        owed: list[tuple[str, Work]] = []
        if self._discoverer is not None:
            for found in state.discoveries.values():
                if found.status == "requested":
                    owed.append(
                        (f"{found.discovery_id}/proposed", partial(self._discoverer.propose, state.project_id, found))
                    )
        if self._reviewer is not None:
            for held in state.ceremonies.values():
                for story_id, role in held.missing:
                    unit = review_unit(held.ceremony_id, story_id, role)
                    owed.append((unit, partial(self._reviewer.review, state.project_id, held, story_id, role)))
                for story_id in held.unestimated:
                    name = f"{held.ceremony_id}/{story_id}/estimated"
                    owed.append((name, partial(self._reviewer.estimate, state.project_id, held, story_id)))
        return owed

    async def _settle(self, stream: StreamId, command_id: CommandId, payload: Payload) -> None:
        async def payloads(state: ProjectState) -> tuple[Payload, ...]:
            return (payload,)

        for left in reversed(range(_TRIES)):
            try:
                await self._record(stream, command_id, payloads, actor=SYSTEM)
            except (LeaseHeld, OwnershipLost, VersionConflict):
                # A command is at the project for a moment; what the model said is not to be paid for twice.
                if not left:
                    raise
                await self._clock.sleep(_PAUSE_S)
            else:
                return

    async def _state(self, stream: StreamId) -> ProjectState:
        known = self._states.get(stream)
        head = await self._log.head(stream)
        if known is not None and known.version > head.version:
            known = None  # the log went back in time
        if known is None or known.version < head.version:
            events = await self._log.read(stream, after=known.version if known else 0)
            known = self._states[stream] = fold_project(stream.entity, events, known)
        return known

    async def _record(
        self,
        stream: StreamId,
        command_id: CommandId,
        payloads: Callable[[ProjectState], Awaitable[Sequence[Payload]]],
        *,
        actor: Principal,
        command: Command | None = None,
    ) -> None:
        """What is decided on the present state is on record, once."""

        async def decide() -> Sequence[Payload]:
            self._states.pop(stream, None)
            return await payloads(await self._state(stream))

        trace_id = command.trace_id if command else ""
        await self._claims.record(stream, command_id, decide, actor=actor, trace_id=trace_id)


def _work_on(stream: StreamId) -> StreamId:
    """A name without events: who holds it asks models for the project, and its commands go on meanwhile."""
    return StreamId(f"project:pr-work-of-{stream.entity}")
