"""The events of a story with their payloads, and the joins that every section needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed
from fleet.events.step import StepFinished, StepResolved, StepStarted
from fleet.kernel.ids import StepId

Events = Sequence[tuple[StoredEvent, Payload]]
"""A story's events in order, each with its payload."""

_P = TypeVar("_P", bound=Payload)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: how it started, and how it ended if it did. Times are UTC milliseconds."""

    started: StepStarted
    started_ms: int
    finished: StepFinished | None = None
    finished_ms: int | None = None
    resolved: StepResolved | None = None

    @property
    def is_model_call(self) -> bool:
        """A model was asked; everything else is a run."""
        return self.started.kind == "model"

    @property
    def outcome(self) -> str:
        """The outcome of the step; `unfinished` when none is recorded."""
        return self.finished.outcome if self.finished else "unfinished"

    @property
    def took_ms(self) -> int:
        """From its first to its last event; 0 while it is unfinished."""
        return self.finished_ms - self.started_ms if self.finished_ms is not None else 0

    @property
    def tokens(self) -> int:
        """Tokens in and out; 0 while it is unfinished."""
        return self.finished.cost.tokens_in + self.finished.cost.tokens_out if self.finished else 0


def of_type(events: Events, kind: type[_P]) -> Iterator[tuple[StoredEvent, _P]]:
    """The events of one type, in order."""
    for event, payload in events:
        if isinstance(payload, kind):
            yield event, payload


def step_records(events: Events) -> tuple[StepRecord, ...]:
    """Every step in the order of its start, joined with its first result (RC-56)."""
    finished: dict[StepId, tuple[StoredEvent, StepFinished]] = {}
    for event, payload in of_type(events, StepFinished):
        finished.setdefault(payload.step_id, (event, payload))
    resolved = {p.step_id: p for _, p in of_type(events, StepResolved)}
    records = dict[StepId, StepRecord]()
    for event, payload in of_type(events, StepStarted):
        end = finished.get(payload.step_id)
        records.setdefault(
            payload.step_id,
            StepRecord(
                started=payload,
                started_ms=event.ts_ms,
                finished=end[1] if end else None,
                finished_ms=end[0].ts_ms if end else None,
                resolved=resolved.get(payload.step_id),
            ),
        )
    return tuple(records.values())


def current_plan(events: Events) -> PlanProposed | None:
    """The plan adopted last; without one the plan proposed last (CX-42)."""
    plans = {p.plan_id: p for _, p in of_type(events, PlanProposed)}
    adopted = [p.plan_id for _, p in of_type(events, PlanAdopted) if p.plan_id in plans]
    if adopted:
        return plans[adopted[-1]]
    return list(plans.values())[-1] if plans else None


def span_ms(events: Events) -> int:
    """From the first to the last event."""
    return max(0, events[-1][0].ts_ms - events[0][0].ts_ms) if events else 0


def decimal_text(value: Fraction, places: int = 4) -> str:
    """The value as a decimal string, rounded half up, without needless zeros (GL-12)."""
    scale = 10**places
    whole, rest = divmod((abs(value) * scale * 2 + 1).__floor__() // 2, scale)
    text = f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 and text != "0" else text
