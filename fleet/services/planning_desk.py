"""What people do with stories, from whichever door they come: the command line and the gateway use this alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fleet.digest import digest_of_json
from fleet.errors import IdempotencyMismatch, StoreUnavailable, StoryNotFound, from_wire
from fleet.events import StoredEvent
from fleet.ids import CommandId, Principal, StoryId, StreamId
from fleet.ports import Answer, Clock, Command, EventLog, Feed, Inbox
from fleet.services.archive import tombstone_of
from fleet.story import FsmConfig, StoryState, fold, parse, waiting_for

__all__ = ["Pending", "PlanningDesk", "StoryLine"]

ANSWER_S = 5.0
"""How long a command waits for its owner before the caller is told to come back (AP-4)."""


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


class PlanningDesk:
    """Commands go to the owner of the story; reads come from the log and need no actor (AP-98)."""

    def __init__(self, *, log: EventLog, inbox: Inbox, feed: Feed, clock: Clock, fsm: FsmConfig) -> None:
        self._log, self._inbox, self._feed, self._clock, self._fsm = log, inbox, feed, clock, fsm

    async def story_id_for(self, data: Any) -> StoryId:
        """A free id for this text: the same text gives the same id, and a number behind it once that one is used up.

        Raises InvalidInput when the text is no story.
        """
        text = parse(data)
        slug = "-".join(re.findall(r"[a-z0-9]+", text.title.lower()))[:32].strip("-") or "story"
        stem = f"st-{slug}-{digest_of_json(text.model_dump(mode='json')).hex[:6]}"
        attempt = 1
        while await self._is_used(wanted := StoryId(stem if attempt == 1 else f"{stem}-{attempt}")):
            attempt += 1
        return wanted

    async def _is_used(self, story_id: StoryId) -> bool:
        """Whether it names a story, or named one that is archived: the graph and the checkpoints still know that."""
        head = await self._log.head(StreamId.of_story(story_id))
        # Who never owned a stream cannot have archived it: most new stories need no look at the project's stream.
        return bool(head.version) or (head.epoch > 0 and await tombstone_of(self._log, story_id) is not None)

    async def command(
        self,
        story_id: StoryId,
        name: str,
        body: dict[str, Any],
        *,
        principal: Principal,
        key: str,
        timeout_s: float = ANSWER_S,
    ) -> dict[str, Any] | Pending:
        """The owner's result, or Pending when it did not decide in time. Errors of the owner arrive as themselves.

        IdempotencyMismatch when the key's stored answer is that to another request (AP-2).
        """
        command_id = CommandId(f"{principal}/{key}")
        command = Command(
            command_id=command_id, stream=StreamId.of_story(story_id), name=name, principal=principal, body=body
        )
        await self._inbox.submit(command)
        answer = await self._inbox.answer(command_id, timeout_s=timeout_s)
        if answer is None:
            return Pending(command_id)
        if answer.request not in ("", command.request):
            raise IdempotencyMismatch(f"key {key!r} was used for another request: send a new one with a new key")
        return _result(answer)

    async def require(
        self, story_id: StoryId, name: str, body: dict[str, Any], *, principal: Principal, key: str
    ) -> dict[str, Any]:
        """As `command`, waiting up to a minute; StoreUnavailable when no owner answered."""
        found = await self.command(story_id, name, body, principal=principal, key=key, timeout_s=60)
        if isinstance(found, Pending):
            raise StoreUnavailable(
                f"no owner answered command {name} within 60 s; it stays queued. Is the fleet up? See `fleet status`",
                command_id=found.command_id,
            )
        return found

    async def answer(self, command_id: CommandId) -> dict[str, Any] | None:
        """The result of an earlier command, None while it is pending."""
        answer = await self._inbox.answer(command_id, timeout_s=0)
        return None if answer is None else _result(answer)

    async def state(self, story_id: StoryId, *, as_of: int | None = None) -> StoryState:
        """The story as recorded, at a version if one is named; StoryNotFound when there is none."""
        state = fold(await self._log.read(StreamId.of_story(story_id), limit=as_of))
        if state is None:
            raise StoryNotFound(
                f"there is no story {story_id}; `fleet story list` shows those that exist", story_id=story_id
            )
        return state

    async def stories(self) -> list[StoryLine]:
        """Every story, by id."""
        streams = [s for s in await self._log.streams() if s.startswith("story:")]
        return [self.line(await self.state(StoryId(s.entity))) for s in streams]

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
        )

    def waiting_for(self, state: StoryState) -> str | None:
        """What a person has to do next, None when nothing waits for a person."""
        return waiting_for(state, self._fsm, now_ms=self._clock.now_ms())

    async def events(self, story_id: StoryId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events after a version; StoryNotFound when the story does not exist."""
        stream = StreamId.of_story(story_id)
        found = await self._log.read(stream, after=after, limit=limit)
        if not found and not (await self._log.head(stream)).version:
            raise StoryNotFound(f"there is no story {story_id}", story_id=story_id)
        return found

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


def _result(answer: Answer) -> dict[str, Any]:
    if answer.ok:
        return answer.result
    raise from_wire(answer.problem)
