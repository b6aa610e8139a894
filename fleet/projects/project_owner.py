"""Owns projects for the moment of each command, and does what they owe beside that (EV-17, GL-19).

A project's stream is claimed for one append at a time, so that any shard may answer. What takes long, which is asking
models, is done without the stream and recorded under a command id that is always the same: whoever does it again
after a crash comes to one recorded outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, get_args

from fleet.events.payload import Payload
from fleet.kernel.clock import Clock
from fleet.kernel.errors import LeaseHeld, LogCorrupted, OwnershipLost, UnsupportedSchema, VersionConflict
from fleet.kernel.ids import SYSTEM, CommandId, Principal, StoryId, StreamId
from fleet.log.port import Command, EventLog, Inbox, LeaseStore
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.commands.handler import stored
from fleet.owner.platform_view import PlatformView
from fleet.planning.backlog_review import BacklogReview, review_unit
from fleet.planning.project_state import ProjectState, fold_project
from fleet.projects.ceremonies import (
    ApproveCeremonyStory,
    CancelCeremony,
    ChooseCeremonyStories,
    CompleteCeremony,
    OpenCeremony,
    RejectCeremonyStory,
    StartCeremony,
)
from fleet.projects.discover import Discoverer
from fleet.projects.documents import read_discovery, read_review
from fleet.projects.project_commands import (
    AcceptDiscovery,
    AnswerDiscovery,
    CreateEpic,
    CreateProject,
    Discover,
    FollowUp,
    ProjectFacts,
    ProjectRules,
    RejectDiscovery,
    UpdateEpic,
    UpdateProject,
)
from fleet.projects.review import Reviewer
from fleet.story.commands.command import Caller, pick_model
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

AnyProjectCommand: TypeAlias = (
    CreateProject
    | UpdateProject
    | CreateEpic
    | UpdateEpic
    | Discover
    | AnswerDiscovery
    | AcceptDiscovery
    | RejectDiscovery
    | OpenCeremony
    | ChooseCeremonyStories
    | StartCeremony
    | ApproveCeremonyStory
    | RejectCeremonyStory
    | CompleteCeremony
    | CancelCeremony
)
_MODELS: Mapping[str, type[AnyProjectCommand]] = {model.command: model for model in get_args(AnyProjectCommand)}
Work = Callable[[], Awaitable[Payload]]
_TRIES = 5
_PAUSE_S = 0.5
_WORK_S = 300
"""How long one piece of work may take before another shard may begin with it too."""


def parse_project_command(name: str, body: Mapping[str, Any]) -> AnyProjectCommand:
    """The command of this name with this body; InvalidInput says what is wrong with it.

    A decision on a story is two commands of one name, told apart by `approve`.
    """
    if name == ApproveCeremonyStory.command and body.get("approve"):
        return ApproveCeremonyStory.model_validate(body)
    return pick_model(_MODELS, name).model_validate(body)


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
        blobs: BlobStore,
        rules: ProjectRules,
        discoverer: Discoverer | None = None,
        reviewer: Reviewer | None = None,
        platform: PlatformView | None = None,
        ttl_s: int = 15,
    ) -> None:
        self._log, self._leases, self._inbox, self._clock = log, leases, inbox, clock
        self._roles_of, self._blobs, self._rules = roles_of, blobs, rules
        self._discoverer, self._reviewer, self._platform = discoverer, reviewer, platform
        self._claims = BriefClaims(log, leases, clock, owner, ttl_s)
        self._states: dict[StreamId, ProjectState] = {}

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command; what follows from it on stories is queued by then, also when it comes again.

        Raises what the domain refuses, and LeaseHeld while another owner is at the project.
        """
        asked = parse_project_command(command.name, command.body)
        if command.command_id not in await self._log.commands(command.stream):

            async def payloads(state: ProjectState) -> tuple[Payload, ...]:
                outcome = asked.decide(state, await self._facts(command, asked, state))
                return await stored(self._blobs, outcome)

            await self._record(command.stream, command.command_id, payloads, actor=command.principal, command=command)
        state = await self._state(command.stream)
        facts = await self._facts(command, asked, state)
        for following in asked.follow(state, facts):
            await self._inbox.submit(_on_story(command, following))
        told = {"project_id": state.project_id, "version": state.version, "status": state.status}
        return told | asked.made(state, facts)

    async def _facts(self, command: Command, asked: AnyProjectCommand, state: ProjectState) -> ProjectFacts:
        """What the command is decided on, and what follows from it; what takes reading is read where it is needed."""
        caller = Caller(principal=command.principal, roles=self._roles_of(command.principal))
        facts = ProjectFacts(caller, command.stream, command.command_id, self._rules)
        match asked:
            case AnswerDiscovery() | AcceptDiscovery() if asked.discovery_id in state.discoveries:
                discovery = state.discoveries[asked.discovery_id]
                return replace(facts, proposal=await read_discovery(self._blobs, discovery))
            case UpdateEpic() if asked.epic_id in state.epics and state.epics[asked.epic_id].status == "cancelled":
                return replace(facts, stories=await self._readable_stories())
            case OpenCeremony() | ChooseCeremonyStories():
                return replace(facts, stories=await self._stories(asked.named()))
            case StartCeremony() if asked.ceremony_id in state.ceremonies:
                return replace(facts, stories=await self._stories(state.ceremonies[asked.ceremony_id].story_ids))
            case ApproveCeremonyStory():
                stories = await self._stories([asked.story_id])
                return replace(facts, stories=stories, reviews=await self._reviews(asked, state))
            case _:
                return facts

    async def _stories(self, names: Iterable[str]) -> dict[StoryId, StoryState | None]:
        return {StoryId(name): fold(await self._log.read(StreamId.of_story(name))) for name in names}

    async def _readable_stories(self) -> dict[StoryId, StoryState | None]:
        """Every story but those that cannot be read: nothing is done to them, and they stop none of the others."""
        stories = dict[StoryId, StoryState | None]()
        for stream in [s for s in await self._log.streams() if s.startswith("story:")]:
            with suppress(LogCorrupted, UnsupportedSchema):
                stories |= await self._stories([stream.entity])
        return stories

    async def _reviews(self, asked: ApproveCeremonyStory, state: ProjectState) -> dict[str, BacklogReview]:
        """What the councils said of the story, by council."""
        ceremony = state.ceremonies.get(asked.ceremony_id)
        events = ceremony.reviews.items() if ceremony is not None else ()
        reviews = {
            council: await read_review(self._blobs, event)
            for (story_id, council), event in events
            if story_id == asked.story_id
        }
        return {council: review for council, review in reviews.items() if review is not None}

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
                    before = [
                        other.decisions[story_id]
                        for other in state.ceremonies.values()
                        if other is not held and story_id in other.decisions
                    ]
                    review = partial(self._reviewer.review, state.project_id, held, story_id, role, before=before)
                    owed.append((unit, review))
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


def _on_story(command: Command, following: FollowUp) -> Command:
    return Command(
        command_id=CommandId(f"{command.principal}/{following.story_id}/{following.key}"),
        stream=StreamId.of_story(following.story_id),
        name=following.sent.command,
        principal=command.principal,
        body=following.sent.body(),
        trace_id=command.trace_id,
    )


def _work_on(stream: StreamId) -> StreamId:
    """A name without events: who holds it asks models for the project, and its commands go on meanwhile."""
    return StreamId(f"project:pr-work-of-{stream.entity}")
