"""What the desk draws beside single events: tests with their history, a change request, a project over time."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from fleet.desk.planning import UNREADABLE
from fleet.desk.stories import StoryDesk
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.workspace import WorkspaceReported
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest, Principal, StoryId
from fleet.owner.duties.change_request import CHANGE_STEP, change_text
from fleet.redaction.redact import redact
from fleet.report.timeline import describe
from fleet.story.state import StoryState
from fleet.workspace.service.report import Measurement
from fleet.workspace.service.results import parse_junit
from serve_apps.requests import Caller, Stories, Story
from serve_apps.routes.project_metrics import project_figures
from serve_apps.routes.projects import known_project
from serve_apps.routes.suite_history import CaseResult, SuiteReport
from serve_apps.sight import require_project, sight_of
from serve_apps.wire.insight import (
    ChangePreview,
    ProjectMetrics,
    ProjectTimeline,
    TestTable,
    change_preview,
    milestone,
    project_metrics,
    test_table,
)

insight_router = APIRouter(prefix="/api")

MAX_STORIES = 200
"""Stories of a project that are looked at, the newest ones."""
MAX_REPORTS = 20
MILESTONES = frozenset(
    [
        "StoryCreated",
        "StoryStarted",
        "StoryTransitioned",
        "StoryParked",
        "StoryUnparked",
        "StoryPaused",
        "StoryResumed",
        "StoryCancelled",
        "StoryClosed",
        "ApprovalGranted",
        "ApprovalRejected",
        "CouncilDecided",
        "CouncilUndecided",
        "TreeMerged",
        "RestoreRequested",
        "DeploymentRecorded",
        "IncidentOpened",
        "IncidentClosed",
    ]
)
Days = Annotated[int, Query(ge=1, le=3650)]
_DAY_MS = 86_400_000
_History = list[tuple[StoredEvent, Payload]]


@insight_router.get(
    "/planner/stories/{story_id}/tests",
    response_model=TestTable,
    operation_id="tests_of_story_api_planner_stories__story_id__tests_get",
)
async def tests_of_story(request: Request, stories: Stories, who: Caller, story_id: Story) -> TestTable:
    """Every test by name with its result in each report, the newest twenty; flaky ones are marked."""
    cut = await sight_of(request).cut(who, await stories.planning.state(story_id))
    reported = [(e, p) for e, p in await stories.history(story_id, cut=cut) if isinstance(p, WorkspaceReported)]
    shown = reported[-MAX_REPORTS:]
    return test_table([await _suite(stories, story_id, event, payload) for event, payload in shown])


async def _suite(stories: StoryDesk, story_id: StoryId, event: StoredEvent, payload: WorkspaceReported) -> SuiteReport:
    try:
        report = Measurement.decode(await stories.named(story_id, payload.report_digest)).report
    except (ArtifactNotFound, ValidationError):
        report = None
    sections = [s for s in (report.unit, report.e2e) if s is not None] if report is not None else []
    failing = frozenset(name for section in sections for name in section.known_failing)
    cases = {f.id: CaseResult("failed", f.message) for section in sections for f in section.failures}
    for junit in [file for section in sections for file in (section.junit, section.preview) if file is not None]:
        cases |= await _cases(stories, junit)
    is_whole = report is not None and report.unit is not None and report.unit.junit is not None
    return SuiteReport(event.version, event.ts_ms, payload.tree_digest, payload.task_id, cases, failing, is_whole)


async def _cases(stories: StoryDesk, junit: Digest) -> dict[str, CaseResult]:
    """Of a file that the story's own report names."""
    try:
        suite = await asyncio.to_thread(parse_junit, await stories.blob(junit))
    except ArtifactNotFound:
        return {}
    if suite is None:
        return {}
    # The file is as the run wrote it.
    return {redact(case.id).text: CaseResult(case.outcome, redact(case.message).text) for case in suite.cases}


@insight_router.get(
    "/planner/stories/{story_id}/change-request",
    response_model=ChangePreview,
    operation_id="change_of_story_api_planner_stories__story_id__change_request_get",
)
async def change_of_story(request: Request, stories: Stories, who: Caller, story_id: Story) -> ChangePreview:
    """What the change request of the story says, or would say now, and what became of it."""
    await sight_of(request).require_whole(who, story_id, "change request", action="read_change_request")
    state = await stories.planning.state(story_id)
    step = state.steps.get(CHANGE_STEP)
    return change_preview(state, change_text(state), step.finished if step is not None else None)


@insight_router.get(
    "/projects/{project_id}/timeline",
    response_model=ProjectTimeline,
    operation_id="timeline_of_project_api_projects__project_id__timeline_get",
)
async def timeline_of_project(
    request: Request,
    stories: Stories,
    who: Caller,
    project_id: str,
    days: Days = 30,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> ProjectTimeline:
    """Milestones of all stories of a project, the newest first."""
    stories_of = await _project(request, stories, who, project_id, days)
    rows = [
        (event, milestone(state, event, describe(payload)))
        for state, events in stories_of
        for event, payload in await _cut(request, who, state, events)
        if event.type in MILESTONES
    ]
    rows.sort(key=lambda row: (-row[0].ts_ms, row[0].event_id))
    return ProjectTimeline(project_id=project_id, items=tuple(row for _, row in rows[:limit]), of=len(rows))


# Source: RP-42.
@insight_router.get(
    "/projects/{project_id}/metrics",
    response_model=ProjectMetrics,
    operation_id="metrics_of_project_api_projects__project_id__metrics_get",
)
async def metrics_of_project(
    request: Request, stories: Stories, who: Caller, project_id: str, days: Days = 30
) -> ProjectMetrics:
    """Quality and performance across the stories of a project that moved in the last days.

    Of what the caller sees of them alone.
    """
    stories_of = await _project(request, stories, who, project_id, days)
    titles = {str(state.story_id): state.content.title for state, _ in stories_of}
    seen = [(str(state.story_id), await _cut(request, who, state, events)) for state, events in stories_of]
    figures = project_figures(seen, now_ms=stories.now_ms)
    return project_metrics(project_id, days, figures, titles)


async def _cut(request: Request, who: Principal, state: StoryState, events: _History) -> _History:
    """Those of the events that the caller sees."""
    cut = await sight_of(request).cut(who, state)
    return events if cut is None else [(event, payload) for event, payload in events if cut.takes(event)]


async def _project(
    request: Request, stories: StoryDesk, who: Principal, project_id: str, days: int
) -> list[tuple[StoryState, _History]]:
    """The stories of the project that moved in the period, each with its history; NotFound for a hidden project."""
    mine = [state for state in await stories.planning.states() if state.project_id == project_id]
    if mine:
        require_project(request, who, project_id)
    else:
        await known_project(request, who, project_id)
    mine = [state for state in mine if sight_of(request).sees_story(who, state)]
    newest = sorted(mine, key=lambda state: (-state.created_ms, state.story_id))[:MAX_STORIES]
    since_ms = stories.now_ms - days * _DAY_MS
    histories = [(state, await _history(stories, state)) for state in newest]
    return [(state, events) for state, events in histories if events and events[-1][0].ts_ms >= since_ms]


async def _history(stories: StoryDesk, state: StoryState) -> _History:
    """The events of the story; none of one that can no longer be read."""
    try:
        return await stories.history(state.story_id)
    except UNREADABLE:
        return []
