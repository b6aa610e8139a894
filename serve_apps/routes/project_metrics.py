"""Figures of several stories together, each a query over their events and nothing else (RP-42); pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from fleet.events.story import StoryCancelled, StoryClosed
from fleet.events.task import TaskTransitioned
from fleet.events.workspace import IncidentOpened, WorkspaceReported, WorkspaceScored
from fleet.report.history import Events, of_type
from fleet.report.stats import statistics
from fleet.report.times import human_wait_ms, phase_times


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """The last score and coverage of one story, at the time of its last measurement."""

    story_id: str
    at_ms: int
    score: str
    verdict: str
    coverage_pct: str | None
    """Of all lines where it was measured, else of the new ones."""


@dataclass(frozen=True, slots=True)
class ProjectFigures:
    """What a period came to. Ratios are exact; None where there is nothing to measure."""

    stories: int
    solved: int
    cancelled: int
    solved_share: Fraction | None
    """Solved among those that ended."""
    lead_ms: tuple[tuple[str, int], ...]
    """Median time in each state, over the stories that were in it, in the order of the first visit."""
    tasks_done: int
    first_try: Fraction | None
    """Done tasks that were never sent back."""
    reworks: int
    incidents: int
    tokens: int
    tokens_per_solved: int | None
    gpu_ms_per_solved: int | None
    human_wait_ms: int
    """Median over stories that waited for people."""
    trend: tuple[TrendPoint, ...]


def project_figures(stories: Sequence[tuple[str, Events]]) -> ProjectFigures:
    """The figures of these stories, each with all of its events."""
    all_stats = [statistics(events) for _, events in stories]
    solved = [any(True for _ in of_type(events, StoryClosed)) for _, events in stories]
    cancelled = sum(any(True for _ in of_type(events, StoryCancelled)) for _, events in stories)
    ended, tries = sum(solved) + cancelled, [tries for _, events in stories for tries in _tries(events)]
    waits = [wait for _, events in stories if (wait := human_wait_ms(events))]
    return ProjectFigures(
        stories=len(stories),
        solved=sum(solved),
        cancelled=cancelled,
        solved_share=Fraction(sum(solved), ended) if ended else None,
        lead_ms=_leads(events for _, events in stories),
        tasks_done=len(tries),
        first_try=Fraction(sum(one == 1 for one in tries), len(tries)) if tries else None,
        reworks=sum(_number(stats["reworks"]) for stats in all_stats),
        incidents=sum(1 for _, events in stories for _ in of_type(events, IncidentOpened)),
        tokens=sum(_number(stats["tokens_total"]) for stats in all_stats),
        tokens_per_solved=_per_solved(all_stats, solved, "tokens_total"),
        gpu_ms_per_solved=_per_solved(all_stats, solved, "gpu_ms"),
        human_wait_ms=int(median(waits)) if waits else 0,
        trend=tuple(sorted(_trend(stories), key=lambda point: (point.at_ms, point.story_id))),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _per_solved(all_stats: Iterable[Mapping[str, object]], solved: Sequence[bool], name: str) -> int | None:
    if not any(solved):
        return None
    spent = [_number(stats[name]) for stats, is_solved in zip(all_stats, solved, strict=True) if is_solved]
    return sum(spent) // len(spent)


def _tries(events: Events) -> list[int]:
    """How often the work on each done task began."""
    starts: dict[str, int] = {}
    done: set[str] = set()
    for _, payload in of_type(events, TaskTransitioned):
        if payload.to == "implementing":
            starts[payload.task_id] = starts.get(payload.task_id, 0) + 1
        elif payload.to == "done":
            done.add(payload.task_id)
    return [starts.get(task_id, 1) for task_id in sorted(done)]


def _leads(stories: Iterable[Events]) -> tuple[tuple[str, int], ...]:
    times: dict[str, list[int]] = {}
    for events in stories:
        for phase in phase_times(events):
            times.setdefault(phase.phase, []).append(phase.wall_ms)
    return tuple((name, int(median(found))) for name, found in times.items())


def _trend(stories: Sequence[tuple[str, Events]]) -> Iterable[TrendPoint]:
    for story_id, events in stories:
        scored = list(of_type(events, WorkspaceScored))
        if not scored:
            continue
        event, score = scored[-1]
        found = [p.summary.coverage for _, p in of_type(events, WorkspaceReported) if p.summary.coverage is not None]
        covered = (found[-1].total_pct or found[-1].new_pct) if found else None
        yield TrendPoint(story_id, event.ts_ms, score.score, score.verdict, covered)
