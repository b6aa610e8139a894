"""The observed log: figures of appends, the trunk told once by each owner and the same by all, no harm to appends."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from fleet.events.codec import encode
from fleet.events.envelope import Head, StoredEvent
from fleet.events.payload import Payload
from fleet.events.platform import FleetPaused
from fleet.events.step import StepStarted
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import StoreUnavailable, VersionConflict
from fleet.kernel.ids import CommandId, Principal, RunKey, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest, Duplicate
from fleet.owner.journal.step_records import run_attempts
from fleet.remote.observed_log import ObservedLog, recorded_trace, root_of
from fleet.telemetry.log_line import Cause
from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import story_trace_id
from fleet.telemetry.service import Tracer, current_cause
from tests.support.story_events import STORY, story

STREAM = StreamId.of_story(STORY)


class Broken(MemoryEventLog):
    """A log that cannot be read."""

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        raise StoreUnavailable("the log does not answer")


def request(events: list[Payload], head: Head, name: str, *, stream: StreamId = STREAM) -> AppendRequest:
    return AppendRequest(
        stream=stream,
        events=[encode(payload) for payload in events],
        expected=head,
        command_id=CommandId(name),
        actor=Principal("system:council"),
        ts_ms=1_767_323_045_000,
    )


class Bench:
    """One log, and any number of processes that observe it."""

    def __init__(self, inner: MemoryEventLog | None = None) -> None:
        self.clock = MemoryClock()
        self.inner = inner or MemoryEventLog()
        self.head = Head()
        self.number = 0

    def process(self) -> tuple[ObservedLog, MemoryMeter, MemorySpans]:
        meter, spans = MemoryMeter(), MemorySpans()
        tracer = Tracer(spans, self.clock)
        return ObservedLog(self.inner, meter=meter, clock=self.clock, tracer=tracer), meter, spans

    async def write(self, log: ObservedLog, payloads: list[Payload]) -> None:
        for payload in payloads:
            self.number += 1
            outcome = await log.append(request([payload], self.head, f"{STORY}/{self.number}"))
            assert isinstance(outcome, Appended)
            self.head = outcome.head


def payloads() -> list[Payload]:
    return [payload for _, payload in story().decoded]


async def test_every_event_is_counted_and_the_trunk_is_told_once() -> None:
    bench = Bench()
    log, meter, spans = bench.process()
    await bench.write(log, payloads())
    assert meter.value("fleet_log_appends_total", outcome="stored") == len(payloads())
    assert meter.value("fleet_events_total", type="StoryCreated") == 1
    assert meter.value("fleet_councils_ended_total", outcome="decided") >= 1
    assert len(meter.observations("fleet_log_append_seconds")) == len(payloads())
    assert [span.name for span in spans.spans].count("story") == 1
    assert len({span.context for span in spans.spans}) == len(spans.spans)
    (open_story,) = log.stories([STORY])
    assert open_story.disposition == "over"


async def test_next_owner_tells_what_the_one_before_told_and_counts_only_what_is_new() -> None:
    bench, events = Bench(), payloads()
    first, _, before = bench.process()
    await bench.write(first, events[:40])
    second, meter, after = bench.process()
    await bench.write(second, events[40:])
    told = {span.context: span for span in after.spans}
    assert {span.context: span for span in before.spans}.items() <= told.items()
    assert meter.value("fleet_events_total", type="StoryCreated") == 0
    assert sum(v for (name, _), v in meter.figures.items() if name == "fleet_events_total") == len(events) - 40


async def test_append_that_was_stored_before_is_caught_up_with() -> None:
    bench, events = Bench(), payloads()
    log, meter, spans = bench.process()
    await bench.write(log, events[:3])
    lost = request([events[3]], bench.head, f"{STORY}/lost")
    assert isinstance(await bench.inner.append(lost), Appended)
    assert isinstance(await log.append(lost), Duplicate)
    assert meter.value("fleet_log_appends_total", outcome="duplicate") == 1
    assert sum(v for (name, _), v in meter.figures.items() if name == "fleet_events_total") == 4
    assert log.stories([STORY])[0].version == 4
    assert spans.spans


async def test_refused_append_is_counted_by_its_code_and_raised() -> None:
    bench = Bench()
    log, meter, _ = bench.process()
    await bench.write(log, payloads()[:2])
    with pytest.raises(VersionConflict):
        await log.append(request([payloads()[2]], Head(), "other"))
    assert meter.value("fleet_log_appends_total", outcome="version_conflict") == 1


async def test_log_that_cannot_be_read_again_does_not_stop_who_appends() -> None:
    bench = Bench(Broken())
    first, _, _ = bench.process()
    await bench.write(first, payloads()[:3])
    second, meter, spans = bench.process()
    await bench.write(second, payloads()[3:5])
    assert meter.value("fleet_log_appends_total", outcome="stored") == 2
    assert spans.spans == []
    assert second.cause(STORY, "a/step") == Cause(story=STORY, step="a/step")


async def test_step_is_found_by_the_keys_of_its_runs_until_it_ends() -> None:
    bench, events = Bench(), payloads()
    log, _, _ = bench.process()
    at = next(i for i, p in enumerate(events) if isinstance(p, StepStarted) and p.kind == "run")
    started = events[at]
    assert isinstance(started, StepStarted)
    await bench.write(log, events[: at + 1])
    third = run_attempts(STORY, started.step_id, started.request_digest)[2]
    for key in (started.key, third):
        cause = log.cause(STORY, key=key)
        assert (cause.story, cause.step, cause.trace_id) == (STORY, started.step_id, story_trace_id(STORY))
    assert log.cause(STORY, key=RunKey("0" * 64)).step == ""
    await bench.write(log, events[at + 1 : at + 2])
    assert log.cause(STORY, key=third).step == ""


async def test_lines_name_story_and_step_and_warn_of_what_failed() -> None:
    bench, found = Bench(), list[tuple[str, Cause]]()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.getMessage(), current_cause()))

    handler, logger = Keep(), logging.getLogger("fleet.stories")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        log, _, _ = bench.process()
        await bench.write(log, payloads())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    finished = [cause for message, cause in found if message.startswith("step finished")]
    assert finished
    assert all(cause.story == STORY and cause.step and cause.trace_id for cause in finished)


async def test_other_streams_are_counted_and_not_watched() -> None:
    bench = Bench()
    log, meter, spans = bench.process()
    reason = "the key [REDACTED:AWS] and [REDACTED:AWS] was in a log"
    paused = FleetPaused(scope="fleet", by=Principal("user:ana"), reason=reason)
    stream = StreamId("platform:main")
    await log.append(request([paused], Head(), "user:ana/k1", stream=stream))
    assert meter.value("fleet_events_total", type="FleetPaused") == 1
    assert meter.value("fleet_redactions_total", **{"class": "AWS"}) == 2
    assert spans.spans == []
    assert log.stories(["main"]) == []


async def test_forgotten_story_is_not_told_of_until_it_comes_back() -> None:
    bench = Bench()
    log, _, _ = bench.process()
    await bench.write(log, payloads()[:5])
    log.keep([STORY])
    assert len(log.stories([STORY])) == 1
    log.keep([])
    assert log.stories([STORY]) == []


async def test_other_methods_are_those_of_the_log() -> None:
    bench = Bench()
    log, _, _ = bench.process()
    await bench.write(log, payloads()[:2])
    assert await log.head(STREAM) == await bench.inner.head(STREAM)
    assert await log.read(STREAM) == await bench.inner.read(STREAM)
    assert await log.streams() == await log.open_streams() == [STREAM]
    assert await log.commands(STREAM) == await bench.inner.commands(STREAM)
    await log.refuse(STREAM, reason="a test")
    assert await log.refused() == {STREAM: "a test"}
    await log.accept_loss(STREAM)
    assert await log.refused() == {}
    await log.erase(STREAM, expected=bench.head)
    assert await log.streams() == []


async def test_root_of_a_story_is_told_by_its_first_event() -> None:
    bench = Bench()
    log, _, spans = bench.process()
    assert await root_of(log, STORY) is None
    await bench.write(log, payloads()[:2])
    found = await root_of(log, STORY)
    assert found == spans.spans[0].context
    (first, *_) = await log.read(STREAM)
    assert recorded_trace(first) == ""
    assert recorded_trace(replace(first, body=b"no json")) == ""
    assert recorded_trace(replace(first, body=b'{"meta": {"trace_id": "t-1"}}')) == "t-1"
