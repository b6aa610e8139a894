"""What people do with stories, from whichever door they come: the command line and the gateway use this alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from fleet.desk.archive import tombstone_of
from fleet.events.envelope import StoredEvent
from fleet.events.story import RepoSource
from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import (
    FleetError,
    IdempotencyMismatch,
    LogCorrupted,
    StoreUnavailable,
    StoryNotFound,
    UnsupportedSchema,
    from_wire,
)
from fleet.kernel.ids import CommandId, Principal, StoryId, StreamId
from fleet.kernel.types import Phase
from fleet.log.port import Answer, Command, EventLog, Feed, Inbox
from fleet.owner.definitions import KeptDefinitions
from fleet.redaction.redact_json import redact_json
from fleet.story.approvals import pending_approvals
from fleet.story.commands.command import StoryCommand
from fleet.story.evolve.story import fold
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan import waiting_for
from fleet.story.state import StoryState
from fleet.story.text import parse

ANSWER_S = 5.0
"""How long a command waits for its owner before the caller is told to come back (AP-4)."""

_VERBATIM = frozenset(["invoke_tool", "start_run", "start_story"])
"""Commands that carry files, arguments of programs and addresses, which are redacted where they are shown (CX-60)."""

SWEEP_S = 30
"""Between two looks at every watched story (EV-20)."""
_BATCH = 200
_PROJECTS = 20_000
"""Stories whose project is kept at hand."""
_REMEMBERED = 500
"""Stories whose state is kept at hand."""


Takes = Callable[[StoryId], Awaitable[bool]]
"""Whether a story is among those that somebody watches."""

Again = Callable[[CommandId, bool], bool]
"""Whether a story is meant, by the command that created it and by whether it is over."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The command is queued; its answer can be asked for by this id."""

    command_id: CommandId


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One story in a list."""

    story_id: str
    title: str
    state: str
    disposition: str
    rigor: str
    score: str | None
    version: int
    waiting_for: str | None
    phase: Phase = "DESIGN"
    """Of its state; the last one for a state that its lifecycle has no longer."""
    project_id: str = "pr-default"
    epic_id: str = "ep-inbox"
    priority: int = 5
    tags: tuple[str, ...] = ()
    dor_ok: bool = False
    is_started: bool = False
    is_paused: bool = False
    tasks_done: int = 0
    tasks: int = 0
    gates: tuple[str, ...] = ()
    """Gates that wait for a decision."""
    parked: str | None = None
    """Why it is parked."""
    tokens: int = 0
    created_ms: int = 0
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class StoryBeside:
    """Another story that is at work on the same repository, and what it holds there."""

    state: StoryState
    branch: str
    """Where its work ends up; no other story writes there."""
    waiting_for: str | None
    """What a person has to do for it; None while it works."""

    @property
    def told(self) -> str:
        """The story in one line, for a person."""
        does = f"waits: {self.waiting_for}" if self.waiting_for else f"is at work in {self.state.state}"
        return f"{self.state.story_id} {does}; it holds the branch {self.branch} and works in folders of its own"


UNREADABLE = (LogCorrupted, UnsupportedSchema)
"""What reading a damaged story raises, and one that a newer fleet wrote. It is that story's alone: others are read."""


@dataclass(frozen=True, slots=True)
class DamagedStory:
    """A story that cannot be read, with the error code and what is wrong with it."""

    story_id: str
    code: str
    message: str

    @staticmethod
    def of(story_id: str, error: FleetError) -> DamagedStory:
        """The story that reading ended with this error."""
        return DamagedStory(str(story_id), error.code, error.message)


@dataclass(frozen=True, slots=True)
class Survey:
    """Every story by id: the states of those that can be read, and those that cannot."""

    states: tuple[StoryState, ...]
    damaged: tuple[DamagedStory, ...]


def recorded_body(sent: StoryCommand) -> dict[str, Any]:
    """The body of a command as it is queued and recorded: without secrets, but for files and addresses (CX-60)."""
    return sent.body() if sent.command in _VERBATIM else redact_json(sent.body())


def request_key(what: str, body: Mapping[str, Any]) -> str:
    """A key for this request alone: sent again it counts once, and one that was refused bars no other body (AP-2)."""
    return f"{what}/{digest_of_json(dict(body)).hex[:12]}"


def _place(repo: RepoSource) -> tuple[str, str]:
    return repo.provider, repo.url.rstrip("/").removesuffix(".git")


class PlanningDesk:
    """Commands go to the owner of the story; reads come from the log and need no actor (AP-98).

    Args:
        fsm: the lifecycles in force.
        definitions: those that each story keeps; None shows every story with those in force.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        inbox: Inbox,
        feed: Feed,
        clock: Clock,
        fsm: FsmConfig,
        definitions: KeptDefinitions[FsmConfig] | None = None,
    ) -> None:
        self._log, self._inbox, self._feed, self._clock, self._fsm = log, inbox, feed, clock, fsm
        self._definitions = definitions
        # Reading a story again costs the events since; what is forgotten costs all of them.
        self._states = LRUCache[StoryId, _Known](_REMEMBERED)
        self._projects: dict[StoryId, str] = {}
        self.damaged: tuple[DamagedStory, ...] = ()
        """What the last look at all stories left out."""

    async def story_id_for(self, data: Any, *, again: Again | None = None) -> StoryId:
        """A free id for this text: the same text gives the same id, and a number behind it once that one is used up.

        Args:
            again: says of a story with such an id, by the command that created it and whether it is over, that it is
                the one that is meant; its id is given once more. One that is archived is not asked for.

        Raises InvalidInput when the text is no story.
        """
        text = parse(data)
        slug = "-".join(re.findall(r"[a-z0-9]+", text.title.lower()))[:32].strip("-") or "story"
        stem = f"st-{slug}-{digest_of_json(text.model_dump(mode='json')).hex[:6]}"
        attempt = 1
        while await self._is_used(candidate := StoryId(stem if attempt == 1 else f"{stem}-{attempt}")):
            if again is not None and await self._is_meant(candidate, again):
                break
            attempt += 1
        return candidate

    async def _is_meant(self, story_id: StoryId, again: Again) -> bool:
        first = await self._log.read(StreamId.of_story(story_id), limit=1)
        if not first:
            return False
        state = await self.state(story_id)
        return again(first[0].command_id, state.closed or state.disposition == "cancelled")

    async def _is_used(self, story_id: StoryId) -> bool:
        """Whether it names a story, or named one that is archived: the graph and the checkpoints still know that."""
        head = await self._log.head(StreamId.of_story(story_id))
        # Who never owned a stream cannot have archived it: most new stories need no look at the project's stream.
        return bool(head.version) or (head.epoch > 0 and await tombstone_of(self._log, story_id) is not None)

    async def command(
        self,
        story_id: StoryId,
        sent: StoryCommand,
        *,
        principal: Principal,
        key: str,
        timeout_s: float = ANSWER_S,
        trace_id: str = "",
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any] | Pending:
        """The owner's result, or Pending when it did not decide in time. Errors of the owner arrive as themselves.

        Args:
            body: `recorded_body` of the command, from whoever looked at it already.

        IdempotencyMismatch when the key's stored answer is that to another request (AP-2).
        """
        command_id = CommandId(f"{principal}/{key}")
        command = Command(
            command_id=command_id,
            stream=StreamId.of_story(story_id),
            name=sent.command,
            principal=principal,
            body=recorded_body(sent) if body is None else body,
            trace_id=trace_id,
        )
        await self._inbox.submit(command)
        answer = await self._inbox.answer(command_id, timeout_s=timeout_s)
        if answer is None:
            return Pending(command_id)
        if answer.request not in ("", command.request):
            raise IdempotencyMismatch(f"key {key!r} was used for another request: send a new one with a new key")
        return _result(answer)

    async def require(self, story_id: StoryId, sent: StoryCommand, *, principal: Principal, key: str) -> dict[str, Any]:
        """As `command`, waiting up to a minute; StoreUnavailable when no owner answered."""
        result = await self.command(story_id, sent, principal=principal, key=key, timeout_s=60)
        if isinstance(result, Pending):
            raise StoreUnavailable(
                f"no owner answered command {sent.command} within 60 s; it stays queued. Is the fleet up? "
                "See `fleet status`",
                command_id=result.command_id,
            )
        return result

    async def answer(self, command_id: CommandId) -> dict[str, Any] | None:
        """The result of an earlier command, None while it is pending."""
        answer = await self._inbox.answer(command_id, timeout_s=0)
        return None if answer is None else _result(answer)

    async def state(self, story_id: StoryId, *, as_of: int | None = None) -> StoryState:
        """The story as recorded, at a version if one is named; StoryNotFound when there is none."""
        state = await (self._latest(story_id) if as_of is None else self._at(story_id, as_of))
        if state is None:
            raise StoryNotFound(
                f"there is no story {story_id}; `fleet story list` shows those that exist", story_id=story_id
            )
        await self._learn(state)
        return state

    async def _at(self, story_id: StoryId, version: int) -> StoryState | None:
        return fold(await self._log.read(StreamId.of_story(story_id), limit=version))

    async def _latest(self, story_id: StoryId) -> StoryState | None:
        """The present state: what is remembered of it, and the events since."""
        stream = StreamId.of_story(story_id)
        head = await self._log.head(stream)
        cached = self._states.get(story_id)
        if cached is not None and cached.version == head.version and cached.hash == head.hash:
            return cached.state
        events = await self._log.read(stream, after=cached.version) if cached is not None else []
        if cached is None or not events or events[0].prev_hash != cached.hash:
            # Nothing is known, or the stream is another one than it was: archived, or gone back in time (EV-19).
            cached, events = None, await self._log.read(stream)
        state = fold(events, cached.state if cached else None)
        if state is None:
            self._states.pop(story_id, None)
        else:
            self._states[story_id] = _Known(state, events[-1].hash)
        return state

    async def _learn(self, state: StoryState) -> None:
        """`fsm_of` knows the lifecycles of the story from here on, as far as they are to be had."""
        if self._definitions is not None:
            # Without the blob store people read the story all the same, in the light of the files in force.
            with contextlib.suppress(FleetError):
                await self._definitions.learn(state.config)

    async def stories(self) -> list[StoryLine]:
        """Every story that can be read, by id."""
        return [self.line(state) for state in await self.states()]

    async def states(self) -> list[StoryState]:
        """Every story that can be read, by id; see `survey`."""
        return list((await self.survey()).states)

    async def survey(self) -> Survey:
        """Every story as recorded, and those that cannot be read; one that is being archived meanwhile is left out."""
        states, damaged = list[StoryState](), list[DamagedStory]()
        for story_id in [StoryId(s.entity) for s in await self._log.streams() if s.startswith("story:")]:
            try:
                state = await self._latest(story_id)
            except UNREADABLE as error:
                damaged.append(DamagedStory.of(story_id, error))
                continue
            if state is not None:
                await self._learn(state)
                states.append(state)
        self.damaged = tuple(damaged)
        return Survey(tuple(states), self.damaged)

    async def beside(self, story_id: StoryId) -> tuple[StoryBeside, ...]:
        """The other stories that were started on the same repository and are not over."""
        own = (await self.state(story_id)).start
        if own is None:
            return ()
        return tuple(
            StoryBeside(state, f"fleet/{state.story_id}", self.waiting_for(state))
            for state in await self.states()
            if state.start is not None
            and state.story_id != story_id
            and not state.closed
            and _place(state.start.repo) == _place(own.repo)
        )

    async def project_of(self, story_id: StoryId) -> str | None:
        """The project of the story, which never changes; None when there is no such story."""
        project_id = self._projects.get(story_id)
        if project_id is not None:
            return project_id
        first = fold(await self._log.read(StreamId.of_story(story_id), limit=1))
        if first is None:
            return None
        if len(self._projects) >= _PROJECTS:
            self._projects.clear()
        self._projects[story_id] = first.project_id
        return first.project_id

    @property
    def now_ms(self) -> int:
        """The present, in milliseconds since 1970 UTC."""
        return self._clock.now_ms()

    def fsm_of(self, state: StoryState) -> FsmConfig:
        """The lifecycles that the story is worked on under (GL-23)."""
        return self._fsm if self._definitions is None else self._definitions.of(state.config)

    async def stories_exist(self) -> bool:
        """Whether the log holds any stream; StoreUnavailable when it does not answer."""
        return bool(await self._log.streams())

    def line(self, state: StoryState) -> StoryLine:
        """The story as one line of a list."""
        return StoryLine(
            story_id=state.story_id,
            title=state.content.title,
            state=state.state,
            disposition="closed" if state.closed else state.disposition,
            rigor=state.rigor,
            score=state.score.score if state.score else None,
            version=state.version,
            waiting_for=self.waiting_for(state),
            phase=self._phase(state),
            project_id=state.project_id,
            epic_id=state.epic_id,
            priority=state.priority,
            tags=state.content.tags,
            dor_ok=state.score.dor_ok if state.score else False,
            is_started=state.start is not None,
            is_paused=state.is_paused,
            tasks_done=sum(task.state == "done" for task in state.tasks.values()),
            tasks=sum(task.state != "cancelled" for task in state.tasks.values()),
            gates=tuple(a.request.gate for a in pending_approvals(state)),
            parked=state.park.cause if state.park else None,
            tokens=state.tokens,
            created_ms=state.created_ms,
            updated_ms=state.updated_ms,
        )

    def _phase(self, state: StoryState) -> Phase:
        lifecycle = self.fsm_of(state).lifecycles.get(state.lifecycle)
        return lifecycle.phase(state.state) if lifecycle is not None and state.state in lifecycle.states else "DOCS"

    def waiting_for(self, state: StoryState) -> str | None:
        """What a person has to do next, None when nothing waits for a person."""
        return waiting_for(state, self.fsm_of(state), now_ms=self._clock.now_ms())

    async def events(self, story_id: StoryId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events after a version; StoryNotFound when the story does not exist."""
        stream = StreamId.of_story(story_id)
        events = await self._log.read(stream, after=after, limit=limit)
        if not events and not (await self._log.head(stream)).version:
            raise StoryNotFound(f"there is no story {story_id}", story_id=story_id)
        return events

    async def watch(
        self, story_id: StoryId, *, after: int = 0, idle_s: float = 15.0
    ) -> AsyncIterator[StoredEvent | None]:
        """Events after a version as they are recorded, without gap or repeat; None after `idle_s` without one."""
        stream = StreamId.of_story(story_id)
        cursor, quiet_ms = await self._feed.position(), self._clock.monotonic_ms()
        while True:
            batch = await self._log.read(stream, after=after)
            for event in batch:
                after = event.version
                yield event
            if batch:
                quiet_ms = self._clock.monotonic_ms()
                continue
            # Hints of other streams end this wait too, so silence is measured by the clock.
            _, cursor = await self._feed.wait(cursor, timeout_s=min(idle_s, 1.0))
            if self._clock.monotonic_ms() - quiet_ms < idle_s * 1000:
                continue
            quiet_ms = self._clock.monotonic_ms()
            if not await self._log.read(stream, after=after, limit=1):
                yield None

    async def heads(self, takes: Takes) -> dict[StoryId, int]:
        """The versions that the chosen stories have reached."""
        ids = [StoryId(s.entity) for s in await self._log.streams() if s.startswith("story:")]
        chosen = [story_id for story_id in ids if await _is_taken(takes, story_id)]
        return {story_id: (await self._log.head(StreamId.of_story(story_id))).version for story_id in chosen}

    async def watch_many(
        self, takes: Takes, *, after: Mapping[StoryId, int], idle_s: float = 15.0
    ) -> AsyncIterator[StoredEvent | None]:
        """Events of the chosen stories as they are recorded, in order for each story, without gap or repeat.

        None after `idle_s` without one. A story that `after` does not name begins at its first event.

        Args:
            takes: whether a story is chosen; asked again at times, because stories begin.
        """
        reached = dict(after)
        hints, quiet_ms, swept_ms = await self._feed.position(), self._clock.monotonic_ms(), 0
        due = await self._chosen(takes)
        while True:
            for story_id in sorted(due):
                async for event in self._behind(story_id, reached):
                    quiet_ms = self._clock.monotonic_ms()
                    yield event
            fresh, hints = await self._feed.wait(hints, timeout_s=min(idle_s, 1.0))
            due = {StoryId(hint.stream.entity) for hint in fresh if hint.stream.startswith("story:")}
            due = {story_id for story_id in due if story_id in reached or await _is_taken(takes, story_id)}
            now_ms = self._clock.monotonic_ms()
            if now_ms - swept_ms >= SWEEP_S * 1000:
                # A hint that was lost is made good by looking at every chosen story (EV-20).
                due, swept_ms = due | await self._chosen(takes), now_ms
            if not due and now_ms - quiet_ms >= idle_s * 1000:
                quiet_ms = now_ms
                yield None

    async def _chosen(self, takes: Takes) -> set[StoryId]:
        ids = [StoryId(s.entity) for s in await self._log.streams() if s.startswith("story:")]
        return {story_id for story_id in ids if await _is_taken(takes, story_id)}

    async def _behind(self, story_id: StoryId, reached: dict[StoryId, int]) -> AsyncIterator[StoredEvent]:
        """What the story has behind its mark, which moves on with every event; nothing of what cannot be read."""
        while batch := await self._readable(story_id, after=reached.get(story_id, 0)):
            for event in batch:
                reached[story_id] = event.version
                yield event
            if len(batch) < _BATCH:
                return

    async def _readable(self, story_id: StoryId, *, after: int) -> list[StoredEvent]:
        try:
            return await self._log.read(StreamId.of_story(story_id), after=after, limit=_BATCH)
        except UNREADABLE:
            return []


async def _is_taken(takes: Takes, story_id: StoryId) -> bool:
    """Whether a story that can be read is chosen."""
    try:
        return await takes(story_id)
    except UNREADABLE:
        return False


@dataclass(frozen=True, slots=True)
class _Known:
    """A state, and the hash of the event that it ends with."""

    state: StoryState
    hash: str

    @property
    def version(self) -> int:
        return self.state.version


def _result(answer: Answer) -> dict[str, Any]:
    if answer.ok:
        return answer.result
    raise from_wire(answer.problem)


async def asked(inbox: Inbox, command: Command, *, timeout_s: float) -> dict[str, Any] | Pending:
    """The owner's result, or Pending when it did not decide in time. Errors of the owner arrive as themselves.

    IdempotencyMismatch when the key's stored answer is that to another request (AP-2).
    """
    await inbox.submit(command)
    answer = await inbox.answer(command.command_id, timeout_s=timeout_s)
    if answer is None:
        return Pending(command.command_id)
    if answer.request not in ("", command.request):
        key = command.command_id.partition("/")[2]
        raise IdempotencyMismatch(f"key {key!r} was used for another request: send a new one with a new key")
    return result_of(answer)


def settled(answer: dict[str, Any] | Pending, name: str) -> dict[str, Any]:
    """The result; StoreUnavailable when nobody answered in the time that was given."""
    if isinstance(answer, Pending):
        raise StoreUnavailable(
            f"no shard answered command {name} in time; it stays queued. Is the fleet up? See `fleet status`",
            command_id=answer.command_id,
        )
    return answer


def result_of(answer: Answer) -> dict[str, Any]:
    """What the owner said; its refusal is raised."""
    if answer.ok:
        return answer.result
    raise from_wire(answer.problem)
