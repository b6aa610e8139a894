"""How long a story took: by phase, at work, and waiting for people."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.story import StoryCancelled, StoryClosed, StoryCreated, StoryParked, StoryTransitioned, StoryUnparked
from fleet.kernel.types import Frozen
from fleet.report.history import Events, StepRecord, of_type, step_records


class PhaseTime(Frozen):
    """Time in one state of the lifecycle, in milliseconds; steps count where they started and may overlap."""

    phase: str
    wall_ms: int
    model_ms: int = 0
    run_ms: int = 0
    model_calls: int = 0
    runs: int = 0


def phase_times(events: Events, *, now_ms: int | None = None) -> tuple[PhaseTime, ...]:
    """Time per state in the order of the first visit; several visits are added up. After `StoryClosed` there is none.

    Args:
        now_ms: up to when the open state of a story that is not over counts; None is its last event.
    """
    stays = _stays(events, _end_ms(events, now_ms))
    steps = step_records(events)
    return tuple(_phase(name, stays, steps) for name in dict.fromkeys(name for name, _, _ in stays))


def _phase(name: str, stays: list[tuple[str, int, int]], records: Iterable[StepRecord]) -> PhaseTime:
    mine = [(begin, end) for state, begin, end in stays if state == name]
    steps = [r for r in records if any(b <= r.started_ms < e for b, e in mine)]
    calls, runs = [s for s in steps if s.is_model_call], [s for s in steps if not s.is_model_call]
    return PhaseTime(
        phase=name,
        wall_ms=sum(end - begin for begin, end in mine),
        model_ms=sum(s.took_ms for s in calls),
        run_ms=sum(s.took_ms for s in runs),
        model_calls=len(calls),
        runs=len(runs),
    )


def _end_ms(events: Events, now_ms: int | None) -> int:
    """Until when what is open counts: a story that is over waits for nobody."""
    last_ms = events[-1][0].ts_ms if events else 0
    is_over = any(isinstance(payload, StoryClosed | StoryCancelled) for _, payload in events)
    return last_ms if now_ms is None or is_over else max(now_ms, last_ms)


def _stays(events: Events, end_ms: int) -> list[tuple[str, int, int]]:
    moves = [(event.ts_ms, payload) for event, payload in of_type(events, StoryTransitioned)]
    created = next(of_type(events, StoryCreated), None)
    if created is None:
        return []
    state, since = created[1].first_state, created[0].ts_ms
    if moves:
        state = moves[0][1].from_
    stays = list[tuple[str, int, int]]()
    for ts_ms, move in moves:
        stays.append((state, since, max(since, ts_ms)))
        state, since = move.to, max(since, ts_ms)
    if next(of_type(events, StoryClosed), None) is None:
        # One millisecond more, so that a step that starts with the last event still belongs to a phase.
        stays.append((state, since, max(since, end_ms) + 1))
    return stays


def human_wait_ms(events: Events, *, now_ms: int | None = None) -> int:
    """Time in which an approval that no delegate gave was open, or the story was parked; overlaps count once.

    Args:
        now_ms: up to when a wait that is not over counts; None is the last event.
    """
    last_ms = _end_ms(events, now_ms)
    return _union([*_approval_waits(events, last_ms), *_parks(events, last_ms)])


def _approval_waits(events: Events, last_ms: int) -> Iterable[tuple[int, int]]:
    closed: dict[str, tuple[int, bool]] = {}
    for kind in (ApprovalGranted, ApprovalRejected, ApprovalExpired, ApprovalRevoked):
        for event, payload in of_type(events, kind):
            delegated = isinstance(payload, ApprovalGranted | ApprovalRejected) and payload.delegated
            closed.setdefault(payload.approval_id, (event.ts_ms, delegated))
    for event, payload in of_type(events, ApprovalRequested):
        end_ms, delegated = closed.get(payload.approval_id, (last_ms, False))
        if not delegated:
            yield event.ts_ms, end_ms


def _parks(events: Events, last_ms: int) -> Iterable[tuple[int, int]]:
    since: int | None = None
    for event, payload in events:
        if isinstance(payload, StoryParked):
            since = event.ts_ms if since is None else since
        elif isinstance(payload, StoryUnparked) and since is not None:
            yield since, event.ts_ms
            since = None
    if since is not None:
        yield since, last_ms


def _union(spans: Iterable[tuple[int, int]]) -> int:
    total, reached = 0, -1
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total
