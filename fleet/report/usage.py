"""The usage ledger: one row for each finished step and each later correction, and sums of rows by any key (MB-30)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from fleet.events.budget import UsageAdjusted
from fleet.events.codec import rfc3339
from fleet.events.step import StepFinished, StepStarted
from fleet.report.history import Events

UsageKey = Literal["story", "task", "council", "role", "engine", "model", "kind", "day"]
USAGE_KEYS: tuple[UsageKey, ...] = ("story", "task", "council", "role", "engine", "model", "kind", "day")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What one step used, or by how much a later look corrects it; only corrections have numbers below 0."""

    ts_ms: int
    step_id: str
    story: str
    task: str | None
    council: str | None
    role: str
    engine: str | None
    """None for what no model did."""
    model: str | None
    kind: str
    steps: int = 1
    """0 in a correction."""
    calls: int
    """Model calls made."""
    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0
    gpu_ms: int
    latency_ms: int = 0
    cost_microusd: int | None
    """None where there is no price."""
    priced: bool

    @property
    def day(self) -> str:
        """The day of its end, UTC."""
        return rfc3339(self.ts_ms)[:10]

    def key(self, by: UsageKey) -> str | None:
        """The value of one key."""
        return getattr(self, by)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """The rows with one value of a key together."""

    key: str
    steps: int
    calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_unpriced: int
    """Tokens without a price, which is not the same as a cost of 0 (MB-31)."""
    gpu_ms: int
    latency_ms: int
    cost_microusd: int


def usage_rows(events: Events) -> tuple[UsageRow, ...]:
    """The ledger of one story, in the order of its events; the first result of a step counts (RC-56)."""
    return tuple(_rows(events))


def _rows(events: Events) -> Iterator[UsageRow]:
    started: dict[str, StepStarted] = {}
    done = dict[str, StepFinished]()
    for event, payload in events:
        match payload:
            case StepStarted():
                started.setdefault(payload.step_id, payload)
            case StepFinished() if payload.step_id in started and payload.step_id not in done:
                done[payload.step_id] = payload
                yield _finished(event.ts_ms, event.stream.entity, started[payload.step_id], payload)
            case UsageAdjusted() if payload.step_id in started:
                step = started[payload.step_id]
                yield _adjusted(event.ts_ms, event.stream.entity, step, done.get(payload.step_id), payload)
            case _:
                pass


def _finished(ts_ms: int, story: str, step: StepStarted, finished: StepFinished) -> UsageRow:
    cost, by_model = finished.cost, int(step.kind == "model")
    return UsageRow(
        ts_ms=ts_ms,
        step_id=step.step_id,
        story=story,
        task=step.task_id,
        council=step.council_id,
        role=step.as_role,
        engine=finished.provenance.engine,
        model=finished.provenance.model,
        kind=step.kind,
        calls=cost.calls if cost.calls is not None else by_model,
        tokens_in=cost.tokens_in,
        tokens_out=cost.tokens_out,
        tokens_cached=cost.tokens_cached,
        gpu_ms=cost.gpu_ms,
        latency_ms=cost.latency_ms,
        cost_microusd=cost.cost_microusd if cost.priced else None,
        priced=cost.priced,
    )


def _adjusted(
    ts_ms: int, story: str, step: StepStarted, finished: StepFinished | None, adjusted: UsageAdjusted
) -> UsageRow:
    delta = adjusted.delta
    tokens_out = delta.get("output_tokens", 0)
    return UsageRow(
        ts_ms=ts_ms,
        step_id=step.step_id,
        story=story,
        task=step.task_id,
        council=step.council_id,
        role=step.as_role,
        engine=finished.provenance.engine if finished else None,
        model=finished.provenance.model if finished else None,
        kind=step.kind,
        steps=0,
        calls=delta.get("calls", 0),
        tokens_in=delta.get("tokens", 0) - tokens_out,
        tokens_out=tokens_out,
        gpu_ms=delta.get("gpu_ms", 0),
        cost_microusd=delta.get("cost_microusd"),
        priced="cost_microusd" in delta,
    )


def sum_usage(rows: Iterable[UsageRow], *, by: UsageKey) -> tuple[UsageSum, ...]:
    """The rows by one key, sorted; rows without a value of it are left out."""
    groups: dict[str, list[UsageRow]] = {}
    for row in rows:
        value = row.key(by)
        if value is not None:
            groups.setdefault(value, []).append(row)
    return tuple(_sum(key, members) for key, members in sorted(groups.items()))


def _sum(key: str, rows: list[UsageRow]) -> UsageSum:
    return UsageSum(
        key=key,
        steps=sum(r.steps for r in rows),
        calls=sum(r.calls for r in rows),
        tokens_in=sum(r.tokens_in for r in rows),
        tokens_out=sum(r.tokens_out for r in rows),
        tokens_cached=sum(r.tokens_cached for r in rows),
        tokens_unpriced=sum(r.tokens_in + r.tokens_out for r in rows if not r.priced),
        gpu_ms=sum(r.gpu_ms for r in rows),
        latency_ms=sum(r.latency_ms for r in rows),
        cost_microusd=sum(r.cost_microusd or 0 for r in rows),
    )
