"""The trace of a whole story, in one process: one tree, also when its owner dies, and no word of anybody in it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from fleet.kernel.clock import SystemClock
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog
from fleet.remote.observed_log import ObservedLog
from fleet.remote.timed_ports import TimedBackend, TimedModels
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import FinishedSpan, story_trace_id
from fleet.telemetry.service import Tracer
from fleet.trees.port import BlobStore
from tests.support.team import team
from tests.support.team_models import EveryEngine, demo_repository, demo_story, scripted
from tests.support.through_log import ThroughLog

pytestmark = pytest.mark.timeout(600)


class Halting(ThroughLog):
    """A log whose caller dies right behind an append: it never learns of it."""

    def __init__(self, inner: EventLog, point: str | None) -> None:
        super().__init__(inner)
        self._point, self.halted = point, asyncio.Event()

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        if self.halted.is_set():
            await asyncio.Event().wait()
        outcome = await self._inner.append(request)
        if self._point is not None and isinstance(outcome, Appended) and re.search(self._point, request.command_id):
            self.halted.set()
            await asyncio.Event().wait()
        return outcome


class Watch:
    """What the processes of a team tell: all into one place."""

    def __init__(self) -> None:
        self.meter, self.spans, self.clock = MemoryMeter(), MemorySpans(), SystemClock()
        self.tracer = Tracer(self.spans, self.clock)

    def log(self, inner: EventLog) -> ObservedLog:
        return ObservedLog(inner, meter=self.meter, clock=self.clock, tracer=self.tracer)

    async def sandbox(self, root: Path, blobs: BlobStore) -> ToolSupervisor:
        inner = BubblewrapBackend(root, blobs)
        backend = TimedBackend(inner, "local", meter=self.meter, clock=self.clock, tracer=self.tracer)
        return ToolSupervisor(backend, MemoryRunLedger(), blobs, self.clock, "sandbox:local", logs=MemoryRunLogs())

    def loose(self) -> list[str]:
        known = {span.context.span_id for span in self.spans.spans}
        return sorted({span.name for span in self.spans.spans if span.parent not in known})


def contents(span: FinishedSpan) -> str:
    return repr((span.name, span.parent, span.start_ns, span.end_ns, span.attributes, span.error))


@pytest.mark.rule("GL-19")
async def test_story_whose_owner_dies_twice_is_one_tree_without_a_word_of_anybody(tmp_path: Path) -> None:
    watch, story = Watch(), demo_story()
    models = TimedModels(EveryEngine(scripted()), meter=watch.meter, clock=watch.clock, tracer=watch.tracer)
    repo = await asyncio.to_thread(demo_repository, tmp_path / "stage")
    points, halts = [r"/opened$", r"/finish$"], list[Halting]()

    def through(inner: EventLog) -> EventLog:
        halts.append(Halting(inner, points.pop(0) if points else None))
        return watch.log(halts[-1])

    async with team(tmp_path, models=models, through=through, make_sandbox=watch.sandbox) as t:
        story_id = await t.create(story)
        await t.start(story_id, repo, model="mock")
        for number in (2, 3):
            await asyncio.wait_for(halts[-1].halted.wait(), 120)
            await t.crash()
            t.begin(t.make_shard(str(number), through(t.log)))
        state = await t.settled(story_id, within_s=200)
        events = await t.desk.events(story_id)
    assert state.closed, state.park

    assert {span.context.trace_id for span in watch.spans.spans} == {story_trace_id(story_id)}
    assert watch.loose() == ["story"]
    trunk = [span for span in watch.spans.spans if "fleet.story" in span.attributes]
    told = {span.context: {contents(other) for other in trunk if other.context == span.context} for span in trunk}
    assert {len(each) for each in told.values()} == {1}
    steps = {span.attributes["fleet.step"] for span in trunk if "fleet.step" in span.attributes}
    assert steps >= {json.loads(event.body)["step_id"] for event in events if event.type == "StepFinished"}
    names = {span.name.split(" ")[0] for span in watch.spans.spans}
    assert names >= {"story", "council", "step", "chat", "run"}
    text = repr(watch.spans.spans)
    for word in (story["title"], story["description"], str(repo), str(tmp_path)):
        assert word not in text

    started = sum(event.type == "OwnershipTaken" for event in events)
    assert started == 3
    assert watch.meter.value("fleet_councils_opened_total", kind="selection") >= 1
    assert watch.meter.value("fleet_runs_total", status="passed") >= 1
