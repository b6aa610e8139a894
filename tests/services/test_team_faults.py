"""Crashes between events: whoever takes the story over ends where the first owner would have ended (PL-48)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.events import Head, StoredEvent
from fleet.ids import StreamId
from fleet.ports import Appended, AppendRequest, Duplicate, EventLog
from fleet.story import StoryState
from tests.support.team import Team, team
from tests.support.team_models import RECORDED, CountingModel, EveryEngine, demo_repository, demo_story

pytestmark = pytest.mark.timeout(200)


class HaltingLog:
    """A log whose caller dies right after an append whose command id contains `needle`: it never learns of it."""

    def __init__(self, inner: EventLog, needle: str | None) -> None:
        self._inner, self._needle = inner, needle
        self.halted = asyncio.Event()

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See `EventLog.append`."""
        if self.halted.is_set():
            await asyncio.Event().wait()
        outcome = await self._inner.append(request)
        if self._needle is not None and isinstance(outcome, Appended) and self._needle in request.command_id:
            self.halted.set()
            await asyncio.Event().wait()
        return outcome

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """See `EventLog.read`."""
        return await self._inner.read(stream, after=after, limit=limit)

    async def head(self, stream: StreamId) -> Head:
        """See `EventLog.head`."""
        return await self._inner.head(stream)

    async def open_streams(self) -> list[StreamId]:
        """See `EventLog.open_streams`."""
        return await self._inner.open_streams()

    async def streams(self) -> list[StreamId]:
        """See `EventLog.streams`."""
        return await self._inner.streams()


@dataclass(frozen=True)
class Outcome:
    """What a run with crashes left."""

    state: StoryState
    events: list[StoredEvent]
    answered: Counter[str]
    missed: list[str]


async def run_with_crashes(root: Path, needles: tuple[str, ...]) -> Outcome:
    """The demo story, its owner crashing at each of these points in turn."""
    model, missed, seen = CountingModel(), [], []
    waiting = list(needles)

    def through(log: EventLog) -> HaltingLog:
        seen.append(HaltingLog(log, waiting.pop(0) if waiting else None))
        return seen[-1]

    repo = demo_repository(root / "stage")
    async with team(root, models=EveryEngine(model), through=through) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED)
        for number, needle in enumerate(needles, 2):
            if not await _halted_or_over(t, seen[-1], story_id):
                missed.append(needle)
                break
            await t.crash()
            t.begin(t.make_shard(str(number), through(t.log)))
        state = await t.settled(story_id)
        events = await t.desk.events(story_id)
    return Outcome(state, events, model.answered, missed)


async def _halted_or_over(t: Team, log: HaltingLog, story_id: str) -> bool:
    halted = asyncio.create_task(log.halted.wait())
    over = asyncio.create_task(t.settled(story_id))  # pyright: ignore[reportArgumentType]
    await asyncio.wait((halted, over), return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    halted.cancel()
    await asyncio.gather(halted, over, return_exceptions=True)
    return log.halted.is_set()


def check(outcome: Outcome, *, crashes: int) -> None:
    """No step has two results, nothing that was answered was asked again, and every takeover raised the epoch."""
    assert outcome.missed == []
    assert outcome.state.closed, outcome.state.park
    bodies = [(e.type, json.loads(e.body)) for e in outcome.events]
    finished = Counter(b["step_id"] for name, b in bodies if name == "StepFinished")
    assert {k: n for k, n in finished.items() if n > 1} == {}
    epochs = [b["epoch"] for name, b in bodies if name == "OwnershipTaken"]
    assert epochs == sorted(set(epochs))
    assert len(epochs) == crashes + 1
    assert [e.epoch for e in outcome.events] == sorted(e.epoch for e in outcome.events)


def asked_again(outcome: Outcome) -> dict[str, int]:
    return {k: n for k, n in outcome.answered.items() if n > 1}


DESIGN = ("/base/git-checkout/start", "/base/git-checkout/finish", "/draft/architect-001/finish", "/adopted")
BUILD = ("/tests/finish", "/evidence/0", "/commit/1", "/review-1-architect/start", "/git-commit/finish")
DOCS = ("/document/finish", "/docs/", "/produced", "/publish/start", "/publish/finish")


@pytest.mark.rule("PL-48", "LC-122", "GL-19")
@pytest.mark.parametrize("needles", [DESIGN, BUILD, DOCS], ids=["design", "build", "docs"])
async def test_story_whose_owner_crashes_ends_as_if_nothing_had_happened(
    needles: tuple[str, ...], tmp_path: Path
) -> None:
    outcome = await run_with_crashes(tmp_path, needles)
    check(outcome, crashes=len(needles))
    assert asked_again(outcome) == {}
