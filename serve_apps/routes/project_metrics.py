"""Figures of several stories together, each a query over their events and nothing else (RP-42); pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from fleet.events.story import StoryCancelled, StoryClosed, StoryParked, StoryTransitioned, StoryUnparked
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
    parked: int
    """Stand still until a person does something."""
    solved_share: Fraction | None
    """Solved among those that ended or stand still."""
    lead_ms: tuple[tuple[str, int], ...]
    """Median time in each state, over the stories that were in it, in the order of the first visit."""
    tasks_done: int
    first_try: Fraction | None
    """Done tasks that were never sent back, neither alone nor with their story."""
    reworks: int
    """Times that a task was sent back."""
    loopbacks: int
    """Times that a story went back to an earlier state, as after an incident."""
    incidents: int
    tokens: int
    tokens_per_solved: int | None
    gpu_ms_per_solved: int | None
    human_wait_ms: int
    """Median over stories that waited for people."""
    trend: tuple[TrendPoint, ...]


def project_figures(stories: Sequence[tuple[str, Events]], *, now_ms: int) -> ProjectFigures:
    """The figures of these stories, each with all of its events.

    Args:
        now_ms: up to when waits and stays that are not over count.
    """
    all_stats = [statistics(events) for _, events in stories]
    solved = [any(True for _ in of_type(events, StoryClosed)) for _, events in stories]
    cancelled = sum(any(True for _ in of_type(events, StoryCancelled)) for _, events in stories)
    parked, first = sum(_is_parked(events) for _, events in stories), [x for _, e in stories for x in _first_tries(e)]
    ended = sum(solved) + cancelled + parked
    waits = [wait for _, events in stories if (wait := human_wait_ms(events, now_ms=now_ms))]
    return ProjectFigures(
        stories=len(stories),
        solved=sum(solved),
        cancelled=cancelled,
        parked=parked,
        solved_share=Fraction(sum(solved), ended) if ended else None,
        lead_ms=_leads((events for _, events in stories), now_ms),
        tasks_done=len(first),
        first_try=Fraction(sum(first), len(first)) if first else None,
        reworks=sum(_number(stats["reworks"]) for stats in all_stats),
        loopbacks=sum(_number(stats["loopbacks"]) for stats in all_stats),
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


def _is_parked(events: Events) -> bool:
    """Whether the last word is that it stands still."""
    is_parked = False
    for _, payload in events:
        if isinstance(payload, StoryParked):
            is_parked = True
        elif isinstance(payload, StoryUnparked | StoryClosed | StoryCancelled):
            is_parked = False
    return is_parked


def _first_tries(events: Events) -> list[bool]:
    """Of each done task whether its work began once, and its story did not go back after it."""
    starts: dict[str, int] = {}
    done: dict[str, bool] = {}
    for _, payload in events:
        if isinstance(payload, StoryTransitioned) and payload.loopback:
            # What was done until then was not right, or not enough: nobody can say which task it was.
            done = dict.fromkeys(done, False)
        elif not isinstance(payload, TaskTransitioned):
            continue
        elif payload.to == "implementing":
            starts[payload.task_id] = starts.get(payload.task_id, 0) + 1
        elif payload.to == "done":
            done[payload.task_id] = starts.get(payload.task_id, 1) == 1
    return list(done.values())


def _leads(stories: Iterable[Events], now_ms: int) -> tuple[tuple[str, int], ...]:
    times: dict[str, list[int]] = {}
    for events in stories:
        for phase in phase_times(events, now_ms=now_ms):
            times.setdefault(phase.phase, []).append(phase.wall_ms)
    return tuple((name, int(median(spans))) for name, spans in times.items())


def _trend(stories: Sequence[tuple[str, Events]]) -> Iterable[TrendPoint]:
    for story_id, events in stories:
        scored = list(of_type(events, WorkspaceScored))
        if not scored:
            continue
        event, score = scored[-1]
        coverages = [
            p.summary.coverage for _, p in of_type(events, WorkspaceReported) if p.summary.coverage is not None
        ]
        covered = (coverages[-1].total_pct or coverages[-1].new_pct) if coverages else None
        yield TrendPoint(story_id, event.ts_ms, score.score, score.verdict, covered)
