"""Crashes between events: whoever takes the story over ends where the first owner would have ended (PL-48)."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.events.envelope import StoredEvent
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog
from fleet.story.state import StoryState
from tests.support.demo_run import DemoRun
from tests.support.team import Team, team
from tests.support.team_models import RECORDED, CountingModel, EveryEngine, demo_repository, demo_story
from tests.support.through_log import ThroughLog

pytestmark = pytest.mark.timeout(600)


class HaltingLog(ThroughLog):
    """A log whose caller dies right after an append whose command id matches `point`: it never learns of it.

    `recorded` collects the command ids of everything that was stored.
    """

    def __init__(self, inner: EventLog, point: str | None, recorded: set[str]) -> None:
        super().__init__(inner)
        self._point, self._recorded = point, recorded
        self.halted = asyncio.Event()

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See `EventLog.append`."""
        if self.halted.is_set():
            await asyncio.Event().wait()
        outcome = await self._inner.append(request)
        self._recorded.add(request.command_id)
        if self._point is not None and isinstance(outcome, Appended) and re.search(self._point, request.command_id):
            self.halted.set()
            await asyncio.Event().wait()
        return outcome


@dataclass(frozen=True)
class Outcome:
    """What a run with crashes left."""

    state: StoryState
    events: list[StoredEvent]
    answered: Counter[str]
    paid_again: list[str]
    missed: list[str]


async def run_with_crashes(root: Path, points: tuple[str, ...]) -> Outcome:
    """The demo story, its owner crashing at each of these points in turn."""
    recorded: set[str] = set()
    model, missed = CountingModel(recorded), list[str]()
    seen: list[HaltingLog] = []
    waiting = list(points)

    def through(log: EventLog) -> HaltingLog:
        seen.append(HaltingLog(log, waiting.pop(0) if waiting else None, recorded))
        return seen[-1]

    repo = demo_repository(root / "stage")
    async with team(root, models=EveryEngine(model), through=through) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED)
        for number, point in enumerate(points, 2):
            if not await _halted_or_over(t, seen[-1], story_id):
                missed.append(point)
                break
            await t.crash()
            t.begin(t.make_shard(str(number), through(t.log)))
        state = await t.settled(story_id)
        events = await t.desk.events(story_id)
    return Outcome(state, events, model.answered, model.paid_again, missed)


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


DESIGN = ("/base/git-checkout/start$", "/base/git-checkout/finish$", "/draft/architect-001/finish$", "/adopted$")
BUILD = ("/tests/finish$", "/evidence/0$", "/commit/1$", "/review-1-architect/start$", "/git-commit/finish$")
DOCS = (r"/docs/\w+/document/finish$", r"/docs/.*/measure/scored$", "/produced$", "/publish/start$", "/publish/finish$")


@pytest.mark.rule("PL-48", "LC-122", "GL-19")
async def test_story_whose_owner_crashes_ends_as_if_nothing_had_happened(tmp_path: Path, demo: DemoRun) -> None:
    points = (*DESIGN, *BUILD, *DOCS)
    outcome = await run_with_crashes(tmp_path, points)
    check(outcome, crashes=len(points))
    assert outcome.paid_again == []
    assert set(outcome.answered) == set(demo.answered)
    assert outcome.state.tree == demo.state.tree
    assert outcome.answered
    assert set(outcome.state.steps) == set(demo.state.steps)
