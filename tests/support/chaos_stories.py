"""Stories for fault tests: whole ones with ids of their own, and a client that writes one as an owner does."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache
from itertools import count, groupby
from typing import Any, TypeVar

from fleet.events.codec import decode, encode
from fleet.events.envelope import Head, StoredEvent
from fleet.events.payload import Payload
from fleet.events.story import AcceptanceCriterion, MilestoneReached, StoryCreated
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import CommitUnknown, FleetError, Retry, StoreError
from fleet.kernel.ids import CommandId, EntityId, StoryId, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog
from tests.support.oracle import RecordingLog
from tests.support.story_events import SYSTEM, Stage, StoryLog, created_payload, story

T = TypeVar("T")


_NUMBERS = count(1)
_IDS = re.compile(r"\b(?:st|pv|tk|de|ap|co|cd|rn|in|rp|qu|dg|ac)(?:-[a-z0-9]+)+\b")


def story_name(what: str) -> StoryId:
    """The id of a story that no other test uses."""
    return StoryId(f"st-{what}-{next(_NUMBERS)}")


@cache
def _template(until: Stage) -> tuple[tuple[StoredEvent, str], ...]:
    return tuple(
        (event, payload.model_dump_json(by_alias=True, exclude_none=True))
        for event, payload in story(until=until).decoded
    )


def whole_story(part: str, *, until: Stage = "closed") -> StoryLog:
    """A story up to this stage as events of its own: every id in it ends in `part`."""
    template = _template(until)
    log = StoryLog(StoryId(f"{template[0][0].stream.entity}-{part}"))
    for _, group in groupby(template, key=lambda pair: pair[0].command_id):
        events = list(group)
        payloads = [
            type(decode(event)).model_validate_json(_IDS.sub(lambda m: f"{m.group()}-{part}", text))
            for event, text in events
            # These streams are written without an owner, under epoch 0.
            if event.type != "OwnershipTaken"
        ]
        if payloads:
            log.add(*payloads, actor=events[0][0].actor)
    return log


async def patiently(call: Callable[[], Coroutine[Any, Any, T]], *, within_s: float = 400) -> T:
    """What the call returns once the store answers; its outages are waited out."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await call()
            except StoreError as error:
                if error.retry is not Retry.LATER:
                    raise
            await asyncio.sleep(0.02)


async def killed(*tasks: asyncio.Task[Any]) -> None:
    """These tasks have ended where they stood, as with their process.

    Cancelled again and again: on Python 3.11 `asyncio.wait_for`, which the driver of Redis sends with, loses a
    cancellation that comes in the moment in which the command was sent.
    """
    living = {task for task in tasks if not task.done()}
    async with asyncio.timeout(20):
        while living:
            for task in living:
                task.cancel()
            _, living = await asyncio.wait(living, timeout=0.2)


class StoryWriter:
    """Writes one story, command after command; each is repeated under its id until the answer is definite (EV-18)."""

    def __init__(self, log: EventLog, story_id: StoryId | None = None, *, body_chars: int = 200) -> None:
        self.seen = RecordingLog(log)
        self.story_id = story_id or story_name("written")
        self.stream = StreamId.of_story(self.story_id)
        self.commands: dict[CommandId, int] = {}
        """Command ids that ended, and how many events each was to store."""
        self.ambiguous: dict[CommandId, str] = {}
        """Commands with an unknown outcome in between, and what they ended as."""
        self.errors: Counter[str] = Counter()
        self.waits_ms: list[int] = []
        """Duration of each successful call of `append`."""
        self.last_error: StoreError | None = None
        self._head = Head()
        self._body_chars = body_chars

    async def write(self, *, events: int = 2, within_s: float = 20.0) -> Appended | Duplicate:
        """The next command, stored for certain."""
        request = self._next(events)
        outcome = await self._definite(request, within_s=within_s)
        if request.command_id in self.ambiguous:
            self.ambiguous[request.command_id] = type(outcome).__name__
        self.commands[request.command_id] = len(request.events)
        self._head = outcome.head if isinstance(outcome, Appended) else await self._reload()
        return outcome

    async def once(self, *, events: int = 2) -> None:
        """Send the next command once and let its error out; `write` goes on with the same command."""
        await self.seen.append(self._next(events))

    def _next(self, events: int) -> AppendRequest:
        number = len(self.commands)
        return AppendRequest(
            stream=self.stream,
            events=[encode(p) for p in self._payloads(number, events)],
            expected=self._head,
            command_id=CommandId(f"{self.story_id}/{number}/finish"),
            actor=SYSTEM,
            ts_ms=1_767_323_045_000 + number,
        )

    async def _definite(self, request: AppendRequest, *, within_s: float) -> Appended | Duplicate:
        clock = SystemClock()
        async with asyncio.timeout(within_s):
            while True:
                began = clock.monotonic_ms()
                try:
                    outcome = await self.seen.append(request)
                except FleetError as error:
                    if not isinstance(error, StoreError) or error.retry is not Retry.LATER:
                        raise
                    self.errors[type(error).__name__] += 1
                    self.last_error = error
                    if isinstance(error, CommitUnknown):
                        self.ambiguous[request.command_id] = "unknown"
                    await asyncio.sleep(0.02)
                else:
                    self.waits_ms.append(clock.monotonic_ms() - began)
                    return outcome

    async def _reload(self) -> Head:
        return await patiently(lambda: self.seen.head(self.stream))

    def _payloads(self, number: int, events: int) -> list[Payload]:
        if number == 0:
            return [_created(self.story_id)]
        return [
            MilestoneReached(
                milestone_id=EntityId(f"ms-{number}-{ordinal}"), name="x" * self._body_chars, ref=str(self.story_id)
            )
            for ordinal in range(events)
        ]


def _created(story_id: StoryId) -> StoryCreated:
    criterion = AcceptanceCriterion(ac_id=EntityId(f"ac-{story_id}"), text="Given 'a b', slugify returns 'a-b'")
    return created_payload(acceptance_criteria=(criterion,))


async def write_story(log: EventLog, written: StoryLog) -> list[StoredEvent]:
    """The events of a whole story are in the log; returns them."""
    await written.write_to(log)
    return written.events
