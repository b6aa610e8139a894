"""Wire types of tests with their history, a change request, and a project over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from fleet.events.envelope import StoredEvent
from fleet.events.step import StepFinished
from fleet.owner.duties.change_request import ChangeText
from fleet.story.state import StoryState
from serve_apps.routes.project_metrics import ProjectFigures
from serve_apps.routes.suite_history import CaseResult, SuiteReport, TestHistory, test_histories
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at


class SuiteRunView(Wire):
    """One report: the tests ran once on one tree."""

    version: int
    at: str
    tree: str
    task_id: str | None
    is_whole: bool
    """False when only failures are known."""


class TestRow(Wire):
    """One test; `results` stand in the order of the reports, null where it did not run."""

    __test__ = False

    test_id: str
    results: tuple[str | None, ...]
    message: str
    """Of its last failure, "" without one."""
    is_flaky: bool
    """It passed and failed on one and the same tree."""
    is_known_failing: bool
    """It fails without the story's work too."""


class TestTable(Wire):
    """Tests by name over reports, the oldest report first; failing tests come first, then flaky ones."""

    __test__ = False

    reports: tuple[SuiteRunView, ...]
    items: tuple[TestRow, ...]
    left_out: int
    """Tests beyond the first two thousand."""


_MAX_TESTS = 2000


def test_table(reports: Sequence[SuiteReport]) -> TestTable:
    """The wire form of the histories of all tests."""
    histories = test_histories(reports)
    return TestTable(
        reports=tuple(
            SuiteRunView(version=r.version, at=at(r.at_ms), tree=r.tree, task_id=r.task_id, is_whole=r.is_whole)
            for r in reports
        ),
        items=tuple(_row(one) for one in histories[:_MAX_TESTS]),
        left_out=max(0, len(histories) - _MAX_TESTS),
    )


test_table.__test__ = False  # type: ignore[attr-defined]


def _row(history: TestHistory) -> TestRow:
    return TestRow(
        test_id=history.test_id,
        results=tuple(_outcome(result) for result in history.results),
        message=next((r.message for r in reversed(history.results) if r is not None and r.message), ""),
        is_flaky=history.is_flaky,
        is_known_failing=history.is_known_failing,
    )


def _outcome(result: CaseResult | None) -> str | None:
    return None if result is None else result.outcome


class ChangePreview(Wire):
    """What a change request of the story says as it is now; `outcome` is null while none was asked for."""

    story_id: str
    head: str
    title: str
    body: str
    """Markdown."""
    verdict: str
    commit: str | None
    outcome: str | None
    """Of the step that opens it."""
    summary: str | None
    """What came of it, in words."""


def change_preview(state: StoryState, text: ChangeText, finished: StepFinished | None) -> ChangePreview:
    """The wire form of a change request."""
    return ChangePreview(
        story_id=state.story_id,
        head=text.head,
        title=text.title,
        body=text.body,
        verdict=text.verdict,
        commit=state.commit,
        outcome=finished.outcome if finished is not None else None,
        summary=finished.excerpt if finished is not None else None,
    )


class Milestone(Wire):
    """One event of one story that a project remembers."""

    story_id: str
    story_title: str
    version: int
    at: str
    event: str
    actor: str
    human: bool
    text: str


class ProjectTimeline(Wire):
    """Milestones, the newest first; `of` counts those of the whole period."""

    project_id: str
    items: tuple[Milestone, ...]
    of: int


def milestone(state: StoryState, event: StoredEvent, text: str) -> Milestone:
    """The wire form of one milestone."""
    return Milestone(
        story_id=state.story_id,
        story_title=state.content.title,
        version=event.version,
        at=at(event.ts_ms),
        event=event.type,
        actor=event.actor,
        human=event.actor.is_human,
        text=text,
    )


class PhaseLead(Wire):
    """Median time of stories in one state."""

    state: str
    median_ms: int


class TrendView(Wire):
    """What was last measured of one story."""

    story_id: str
    story_title: str
    at: str
    score: float
    verdict: str
    coverage_pct: float | None


# Source: RP-42.
class ProjectMetrics(Wire):
    """Quality and performance across stories; shares are between 0 and 1, null where nothing is measured."""

    project_id: str
    days: int
    stories: int
    solved: int
    cancelled: int
    parked: int
    solved_share: float | None
    first_try_share: float | None
    tasks_done: int
    reworks: int
    loopbacks: int
    incidents: int
    tokens: int
    tokens_per_solved: int | None
    gpu_ms_per_solved: int | None
    human_wait_ms: int
    lead: tuple[PhaseLead, ...]
    trend: tuple[TrendView, ...]


def project_metrics(project_id: str, days: int, figures: ProjectFigures, titles: Mapping[str, str]) -> ProjectMetrics:
    """The wire form of the figures."""
    return ProjectMetrics(
        project_id=project_id,
        days=days,
        stories=figures.stories,
        solved=figures.solved,
        cancelled=figures.cancelled,
        parked=figures.parked,
        solved_share=_share(figures.solved_share),
        first_try_share=_share(figures.first_try),
        tasks_done=figures.tasks_done,
        reworks=figures.reworks,
        loopbacks=figures.loopbacks,
        incidents=figures.incidents,
        tokens=figures.tokens,
        tokens_per_solved=figures.tokens_per_solved,
        gpu_ms_per_solved=figures.gpu_ms_per_solved,
        human_wait_ms=figures.human_wait_ms,
        lead=tuple(PhaseLead(state=name, median_ms=ms) for name, ms in figures.lead_ms),
        trend=tuple(
            TrendView(
                story_id=point.story_id,
                story_title=titles.get(point.story_id, point.story_id),
                at=at(point.at_ms),
                score=float(point.score),
                verdict=point.verdict,
                coverage_pct=float(point.coverage_pct) if point.coverage_pct is not None else None,
            )
            for point in figures.trend
        ),
    )


def _share(value: Fraction | None) -> float | None:
    return None if value is None else round(float(value), 4)
