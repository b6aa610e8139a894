"""Figures of context over the stories that the caller sees: packs, summaries, redactions, graph, cache (AP-99)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from fleet.context.row_cut import RowCut
from fleet.desk.context.statistics import Away, ContextReport, ContextStatistics
from fleet.desk.principals import PrincipalRegistry
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StoryId
from fleet.report.context_figures import Compression, PackFigures
from serve_apps.requests import Caller, Desk
from serve_apps.sight import require_project, sight_of
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

context_router = APIRouter(prefix="/api")


class PackCell(Wire):
    """The packs that one role was given in one phase; sizes are tokens."""

    role: str
    phase: str
    packs: int
    tokens_median: int
    tokens_largest: int
    budget_median: int
    used: float
    """Tokens of all of them against their ceilings, 0 to 1."""
    dropped: int
    """Items that did not fit."""


class CompressionView(Wire):
    """The summaries of long histories; ratio and recall are null before the first."""

    summaries: int
    tokens_before: int
    tokens_after: int
    ratio: float | None
    """1 - after / before."""
    recall: float | None
    """The lowest of any class of facts."""
    recall_by_class: dict[str, float]
    targets_missed: int
    """Summaries that stayed longer than they should, so that nothing was lost."""


class ProjectionView(Wire):
    """How far the decision graph is behind the record of these stories; both null while the graph is away."""

    lag_events: int | None
    streams_behind: int | None
    away: str | None
    """Why nothing is known."""


class PackActivityView(Wire):
    """What the builder of packs did for role agents of these projects since it began; null while it is away."""

    since: str | None
    queries: int | None
    cache_hit_rate: float | None
    """Packs that were at hand, 0 to 1; null before the first."""
    p95_ms: int | None
    """Time within which 95 of 100 of the last packs were given."""
    away: str | None


class ContextStats(Wire):
    """Figures of context. Packs, summaries and redactions are sums over the record, the rest is as of now."""

    projects: tuple[str, ...] | None
    """Whose stories are counted; null for all there are."""
    stories: int
    packs: tuple[PackCell, ...]
    dropped: dict[str, int]
    """Items that did not fit, by part of the pack."""
    compression: CompressionView
    redactions: dict[str, int]
    """Places that were taken out of the record, by class."""
    projection: ProjectionView
    activity: PackActivityView


def _statistics(request: Request, who: Caller) -> ContextStatistics:
    statistics: ContextStatistics | None = request.app.state.statistics
    if statistics is None:
        raise StoreUnavailable("this front has no figures of context wired")
    return statistics


def _projects(
    request: Request, who: Caller, project: Annotated[list[str] | None, Query(max_length=50)] = None
) -> frozenset[str] | None:
    """The projects that are asked for, else those that the caller sees; None for all. NotFound for a hidden one."""
    for name in project or ():
        require_project(request, who, name)
    registry: PrincipalRegistry = request.app.state.registry
    return frozenset(project) if project else registry.projects_of(who)


Projects = Annotated[frozenset[str] | None, Depends(_projects)]


@context_router.get("/context/stats", response_model=ContextStats, operation_id="context_stats_api_context_stats_get")
async def context_stats(
    request: Request,
    desk: Desk,
    statistics: Annotated[ContextStatistics, Depends(_statistics)],
    who: Caller,
    projects: Projects,
) -> ContextStats:
    """Packs by role and phase, what did not fit, summaries, redactions, the age of the graph, the cache of packs.

    Of every story of the named projects, or of all that the caller sees. To follow it live, read it again after each
    event of group `context` in the stream of events.
    """

    sight = sight_of(request)

    async def counts(story_id: StoryId) -> bool:
        is_of_them = projects is None or await desk.project_of(story_id) in projects
        return is_of_them and await sight.takes(who, story_id)

    async def cut_of(story_id: StoryId) -> RowCut | None:
        return await sight.cut_again(who, story_id, None)

    cuts = None if sight.sees_every_row(who) else cut_of
    report = await statistics.of(list(await desk.heads(counts)), projects=projects, cut_of=cuts)
    return _view(report, projects)


def _view(report: ContextReport, projects: frozenset[str] | None) -> ContextStats:
    figures = report.figures
    dropped: Counter[str] = Counter()
    for one in figures.packs.values():
        dropped.update(one.dropped)
    return ContextStats(
        projects=None if projects is None else tuple(sorted(projects)),
        stories=report.stories,
        packs=tuple(_cell(role, phase, one) for (role, phase), one in figures.packs.items()),
        dropped=_most_first(dropped),
        compression=_compression(figures.compression),
        redactions=_most_first(figures.redactions),
        projection=_projection(report),
        activity=_activity(report),
    )


def _cell(role: str, phase: str, figures: PackFigures) -> PackCell:
    return PackCell(
        role=role,
        phase=phase,
        packs=figures.packs,
        tokens_median=figures.tokens_median,
        tokens_largest=figures.tokens_largest,
        budget_median=figures.budget_median,
        used=_share(figures.used),
        dropped=figures.dropped.total(),
    )


def _compression(compression: Compression) -> CompressionView:
    return CompressionView(
        summaries=compression.summaries,
        tokens_before=compression.tokens_before,
        tokens_after=compression.tokens_after,
        ratio=None if compression.ratio is None else _share(compression.ratio),
        recall=None if compression.lowest_recall is None else _share(compression.lowest_recall),
        recall_by_class={kind: _share(share) for kind, share in compression.recall.items()},
        targets_missed=compression.targets_missed,
    )


def _projection(report: ContextReport) -> ProjectionView:
    lag = report.lag
    if isinstance(lag, Away):
        return ProjectionView(lag_events=None, streams_behind=None, away=lag.reason)
    return ProjectionView(lag_events=lag.events, streams_behind=lag.streams, away=None)


def _activity(report: ContextReport) -> PackActivityView:
    activity = report.activity
    if isinstance(activity, Away):
        return PackActivityView(since=None, queries=None, cache_hit_rate=None, p95_ms=None, away=activity.reason)
    rate = _share(Fraction(activity.hits, activity.queries)) if activity.queries else None
    return PackActivityView(
        since=at(activity.since_ms), queries=activity.queries, cache_hit_rate=rate, p95_ms=activity.p95_ms, away=None
    )


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _share(value: Fraction) -> float:
    return round(float(value), 4)
