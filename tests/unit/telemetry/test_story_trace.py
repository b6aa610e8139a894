"""The trunk of a trace is a tree that follows from the log alone, wherever the story stands and whoever tells it."""

from __future__ import annotations

import json

import pytest

from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.step import StepStarted
from fleet.events.story import StoryCancelled, StoryCreated, StoryParked, StoryUnparked
from fleet.kernel.ids import EntityId
from fleet.telemetry.otlp import FinishedSpan, TraceContext, story_trace_id
from fleet.telemetry.story_trace import StoryTrace, request_span_id
from tests.support.histories import recorded
from tests.support.story_events import AC_1, SYSTEM, StoryLog, story

HISTORIES = {history.name: history.export for history in recorded()}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def told(events: list[StoredEvent] | tuple[StoredEvent, ...], trace: StoryTrace | None = None) -> list[FinishedSpan]:
    trace = trace or StoryTrace(events[0].stream.entity)
    return [span for event in events for span in trace.take(event, decode(event))]


def loose(spans: list[FinishedSpan]) -> list[str]:
    known = {span.context.span_id for span in spans}
    return [span.name for span in spans if span.parent not in known]


@pytest.mark.parametrize("name", sorted(HISTORIES))
def test_whole_story_is_one_tree_with_every_step_in_it(name: str) -> None:
    events = HISTORIES[name].events
    spans = told(events)
    assert len({span.context.trace_id for span in spans}) == 1
    assert len({span.context.span_id for span in spans}) == len(spans)
    steps = {span.attributes["fleet.step"] for span in spans if span.name.startswith("step ")}
    assert steps >= {json.loads(event.body)["step_id"] for event in events if event.type == "StepFinished"}
    if decode(events[-1]).type in ("StoryClosed", "StoryCancelled", "StoryParked"):
        assert loose(spans) == ["story"]
    assert all(span.start_ns <= span.end_ns for span in spans)


def test_next_owner_tells_the_same_spans_again() -> None:
    log = story()
    assert told(log.events) == told(log.events)


def test_event_that_was_taken_before_ends_nothing() -> None:
    log = story(until="task")
    trace = StoryTrace("st-slug7")
    assert told(log.events, trace)
    assert told(log.events, trace) == []


def test_step_of_a_council_hangs_on_the_council_and_the_council_on_the_story() -> None:
    spans = told(story().events)
    councils = {span.context.span_id: span for span in spans if span.name == "council"}
    root = next(span for span in spans if span.name == "story")
    within = [span for span in spans if span.parent in councils]
    assert councils
    assert within
    assert {span.parent for span in councils.values()} == {root.context.span_id}
    assert root.parent is None
    assert root.context.trace_id == story_trace_id("st-slug7")


def test_story_of_a_caller_is_in_the_callers_trace_below_its_request() -> None:
    trace = StoryTrace("st-slug7", recorded=TRACE, created_by="user:ana/k1")
    (root, *_) = told(story(until="created").events, trace)
    assert root.context.trace_id == TRACE
    assert root.parent == request_span_id("user:ana/k1")


def test_step_that_is_under_way_has_its_span_before_it_ends_and_the_story_stands_in_for_others() -> None:
    events = story().events
    trace = StoryTrace("st-slug7")
    seen: dict[str, TraceContext] = {}
    ended: dict[str, FinishedSpan] = {}
    for event in events:
        payload = decode(event)
        spans = trace.take(event, payload)
        if isinstance(payload, StepStarted):
            seen[payload.step_id] = trace.step(payload.step_id)
        ended |= {str(span.attributes["fleet.step"]): span for span in spans if span.name.startswith("step ")}
    assert seen
    assert {step: span.context for step, span in ended.items()} == seen
    assert trace.step("no/such/step") == trace.root


def parked_log() -> tuple[StoryLog, int]:
    """A story that is parked in the middle of a council with a step under way, and the version of that."""
    log = story()
    cut = next(
        i
        for i, event in enumerate(log.events)
        if event.type == "StepStarted" and json.loads(event.body).get("council_id")
    )
    short = StoryLog()
    for event in log.events[: cut + 1]:
        short.add(decode(event))
    short.add(StoryParked(cause="stuck", detail="nothing"), actor=SYSTEM)
    return short, len(short.events)


def test_parked_story_leaves_no_span_that_children_look_for_in_vain() -> None:
    log, version = parked_log()
    before = StoryTrace("st-slug7")
    told(log.events[: version - 1], before)
    step = json.loads(log.events[version - 2].body)["step_id"]
    context = before.step(step)
    spans = told(log.events)
    broken = next(span for span in spans if span.context == context)
    assert broken.error == "stuck"
    assert broken.attributes["fleet.outcome"] == "parked"
    assert loose(spans) == ["story"]


def test_step_that_goes_on_after_a_park_is_another_span_of_the_same_tree() -> None:
    log, _ = parked_log()
    trace = StoryTrace("st-slug7")
    first = told(log.events, trace)
    step = json.loads(next(e for e in reversed(log.events) if e.type == "StepStarted").body)["step_id"]
    log.add(StoryUnparked(by=SYSTEM, note="it goes on", cause="stuck"), actor=SYSTEM)
    log.add(StoryCancelled(reason="enough of it"), actor=SYSTEM)
    rest = told(log.events, trace)
    again = next(span for span in rest if span.attributes.get("fleet.step") == step)
    assert again.context not in [span.context for span in first]
    assert again.error == "cancelled"
    assert loose([*first, *rest]) == ["story"]


def test_wait_for_a_person_goes_on_while_a_story_is_parked_and_ends_with_the_answer() -> None:
    spans = told(story().events)
    waits = [span for span in spans if span.name == "wait for a person"]
    assert waits
    assert {span.attributes["fleet.answer"] for span in waits} <= {"granted", "rejected", "expired", "revoked"}


def test_no_span_holds_text_that_a_person_or_a_model_wrote() -> None:
    created = next(decode(e) for e in story().events if e.type == "StoryCreated")
    assert isinstance(created, StoryCreated)
    text = repr(told(story().events))
    assert created.title not in text
    assert created.description not in text
    assert created.acceptance_criteria[0].text not in text
    assert EntityId(AC_1) not in text
