"""The trunk of a story's trace, made of its events alone: the story, its councils, steps and waits for people.

What processes tell of their own work hangs on these spans. Since they follow from the log, they are the same whoever
writes them and however often: nothing that was lost in a crash leaves a gap between a span and the story.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.council import CouncilCancelled, CouncilDecided, CouncilOpened, CouncilUndecided
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepResolved, StepStarted
from fleet.events.story import StoryCancelled, StoryClosed, StoryParked, StoryUnparked
from fleet.telemetry.otlp import Attribute, FinishedSpan, TraceContext, span_id_of, story_trace_id

_NS = 1_000_000


def request_span_id(command_id: str) -> str:
    """The span of the HTTP request that sent this command."""
    return span_id_of("request", command_id)


@dataclass(slots=True)
class _Open:
    """A span that has begun. `episode` counts how often it was broken off: each part is a span of its own."""

    name: str
    place: tuple[str, str]
    start_ms: int
    parent: str
    attributes: dict[str, Attribute]
    episode: int = 0
    council: str = ""
    """Of a step: the council that it belongs to."""


class StoryTrace:
    """Takes the events of one story in order, and says after each which spans have ended.

    Args:
        story_id: whose events they are.
        recorded: the trace that the first event carries; empty when it carries none.
        created_by: command id of the first event.
    """

    def __init__(self, story_id: str, *, recorded: str = "", created_by: str = "") -> None:
        self.story_id = story_id
        self.trace_id = story_trace_id(story_id, recorded)
        # A caller's trace has the request that created the story in it; a trace of our own begins with the story.
        self._above = request_span_id(created_by) if self.trace_id == recorded else None
        self._open: dict[tuple[str, str], _Open] = {}
        self._episodes: dict[tuple[str, str], int] = {}
        self.version = 0

    @property
    def root(self) -> TraceContext:
        """The span of the story itself."""
        return TraceContext(self.trace_id, span_id_of("story", self.story_id))

    def step(self, step_id: str) -> TraceContext:
        """The span of a step that is under way; the story's own when it is not."""
        span = self._open.get(("step", step_id))
        return self.root if span is None else self._context(span)

    def take(self, event: StoredEvent, payload: Payload) -> list[FinishedSpan]:
        """The spans that this event ends; an event that was taken before ends none."""
        if event.version <= self.version:
            return []
        self.version = event.version
        first = [self._story(event)] if event.version == 1 else []
        return first + list(self._ended(event, payload))

    def _story(self, event: StoredEvent) -> FinishedSpan:
        return FinishedSpan(
            name="story",
            context=self.root,
            parent=self._above,
            start_ns=event.ts_ms * _NS,
            end_ns=(event.ts_ms + 1) * _NS,
            attributes={"fleet.story": self.story_id},
        )

    def _ended(self, event: StoredEvent, payload: Payload) -> Iterator[FinishedSpan]:
        yield from self._of_step(payload, event.ts_ms)
        yield from self._of_council(payload, event.ts_ms)
        yield from self._of_story(payload, event.ts_ms)

    def _of_step(self, payload: Payload, at_ms: int) -> Iterator[FinishedSpan]:
        match payload:
            case StepStarted():
                self._begin_step(payload, at_ms)
            case StepFinished():
                yield from self._end_step(payload, at_ms)
            case StepResolved(outcome="not_happened"):
                yield from self._end(("step", payload.step_id), at_ms, error="not_happened")
            case _:
                return

    def _of_council(self, payload: Payload, at_ms: int) -> Iterator[FinishedSpan]:
        match payload:
            case CouncilOpened():
                self._begin_council(payload, at_ms)
            case CouncilDecided():
                facts: dict[str, Attribute] = {"fleet.outcome": "decided", "fleet.decided_in": payload.decided_in}
                yield from self._end(("council", payload.council_id), at_ms, facts)
            case CouncilUndecided():
                facts = {"fleet.outcome": "no_decision", "fleet.reason": payload.reason}
                yield from self._end(("council", payload.council_id), at_ms, facts)
            case CouncilCancelled():
                yield from self._end(("council", payload.council_id), at_ms, {"fleet.outcome": "cancelled"})
            case _:
                return

    def _of_story(self, payload: Payload, at_ms: int) -> Iterator[FinishedSpan]:
        match payload:
            case ApprovalRequested():
                attributes: dict[str, Attribute] = {"fleet.gate": payload.gate, "fleet.role": payload.role}
                self._begin("wait for a person", ("approval", payload.approval_id), at_ms, attributes)
            case ApprovalGranted() | ApprovalRejected() | ApprovalExpired() | ApprovalRevoked():
                answer = payload.type.removeprefix("Approval").lower()
                yield from self._end(("approval", payload.approval_id), at_ms, {"fleet.answer": answer})
            case StoryParked():
                yield from self._broken_off(at_ms, payload.cause)
            case StoryUnparked():
                self._go_on(at_ms)
            case StoryCancelled():
                yield from self._all_end(at_ms, "cancelled")
            case StoryClosed():
                yield from self._all_end(at_ms, "closed")
            case _:
                return

    def _begin_step(self, started: StepStarted, at_ms: int) -> None:
        attributes: dict[str, Attribute] = {
            "fleet.step": started.step_id,
            "fleet.kind": started.kind,
            "fleet.effect": started.effect,
            "fleet.role": started.as_role,
        }
        if started.tool:
            attributes["fleet.tool"] = f"{started.tool}.{started.op}" if started.op else started.tool
        if started.task_id:
            attributes["fleet.task"] = started.task_id
        place = ("step", str(started.step_id))
        self._begin(f"step {started.kind}", place, at_ms, attributes, council=started.council_id or "")

    def _end_step(self, finished: StepFinished, at_ms: int) -> Iterator[FinishedSpan]:
        facts: dict[str, Attribute] = {
            "fleet.outcome": finished.outcome,
            "fleet.tokens_in": finished.cost.tokens_in,
            "fleet.tokens_out": finished.cost.tokens_out,
            "fleet.latency_ms": finished.cost.latency_ms,
        }
        if finished.provenance.engine:
            facts["fleet.engine"] = finished.provenance.engine
        if finished.exit_code is not None:
            facts["fleet.exit_code"] = finished.exit_code
        error = "" if finished.outcome == "succeeded" else finished.error_code or finished.outcome
        yield from self._end(("step", finished.step_id), at_ms, facts, error=error)

    def _begin_council(self, opened: CouncilOpened, at_ms: int) -> None:
        attributes: dict[str, Attribute] = {
            "fleet.council": opened.council_id,
            "fleet.kind": opened.kind,
            "fleet.seats": len(opened.roster),
        }
        if opened.task_id:
            attributes["fleet.task"] = opened.task_id
        self._begin("council", ("council", opened.council_id), at_ms, attributes)

    def _begin(
        self, name: str, place: tuple[str, str], at_ms: int, attributes: dict[str, Attribute], *, council: str = ""
    ) -> None:
        attributes = {"fleet.story": self.story_id, **attributes}
        parent, episode = self._span_of_council(council), self._episodes.get(place, 0)
        self._open[place] = _Open(name, place, at_ms, parent, attributes, episode, council)

    def _span_of_council(self, council_id: str) -> str:
        """The council's span while it is open; otherwise that of the story."""
        span = self._open.get(("council", council_id))
        return self.root.span_id if span is None else self._context(span).span_id

    def _end(
        self, place: tuple[str, str], at_ms: int, facts: dict[str, Attribute] | None = None, *, error: str = ""
    ) -> Iterator[FinishedSpan]:
        span = self._open.pop(place, None)
        if span is None:
            return
        self._episodes[place] = span.episode + 1
        yield self._finished(span, at_ms, facts or {}, error)

    def _finished(self, span: _Open, at_ms: int, facts: dict[str, Attribute], error: str) -> FinishedSpan:
        return FinishedSpan(
            name=span.name,
            context=self._context(span),
            parent=span.parent,
            start_ns=span.start_ms * _NS,
            end_ns=max(at_ms, span.start_ms) * _NS,
            attributes={**span.attributes, **facts},
            error=error,
        )

    def _context(self, span: _Open) -> TraceContext:
        kind, name = span.place
        return TraceContext(self.trace_id, span_id_of(kind, self.story_id, name, str(span.episode)))

    def _broken_off(self, at_ms: int, why: str) -> Iterator[FinishedSpan]:
        # A parked story may rest for days: what hangs on its spans must find them now. What goes on is another span.
        resting = [span for span in self._open.values() if span.place[0] != "approval"]
        for span in resting:
            yield self._finished(span, at_ms, {"fleet.outcome": "parked"}, why)
        for span in resting:
            span.episode += 1
            span.start_ms = at_ms
        for span in resting:
            span.parent = self._span_of_council(span.council)

    def _go_on(self, at_ms: int) -> None:
        for span in self._open.values():
            if span.place[0] != "approval":
                span.start_ms = at_ms

    def _all_end(self, at_ms: int, why: str) -> Iterator[FinishedSpan]:
        for place in list(self._open):
            yield from self._end(place, at_ms, {"fleet.outcome": why}, error="" if why == "closed" else why)
