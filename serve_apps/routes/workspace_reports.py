"""What runs of the pipeline reported, and the score of any report (AP-83, AP-84, RG-45)."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from fleet.events.envelope import StoredEvent
from fleet.events.workspace import WorkspaceReported, WorkspaceSummary
from fleet.kernel.errors import InvalidInput
from fleet.workspace.report import WorkspaceReport, parse_report
from fleet.workspace.verdict import WorkspaceScore, score_workspace
from serve_apps.requests import Caller, Stories, Story
from serve_apps.sight import sight_of
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

workspace_router = APIRouter(prefix="/api")


class ReportedView(Wire):
    """One run of the pipeline on one tree, as it was recorded."""

    version: int
    """Of the event; several reports of one tree all stay (RG-46)."""
    recorded_at: str
    run_id: str
    task_id: str | None
    """The task whose candidate was measured; null for the tree of the story."""
    tree: str
    report_digest: str
    """The whole report is the blob of this digest, at `.../blobs/{digest}`."""
    complete: bool
    summary: WorkspaceSummary


class ReportedList(Wire):
    """Reports in the order of their recording."""

    items: tuple[ReportedView, ...]
    next_after: int | None = None


class ReportToScore(Wire):
    """A report of schema 1 and the level that it is judged at."""

    report: dict[str, Any]
    rigor: Annotated[str, Field(min_length=1, max_length=20)]


@workspace_router.get(
    "/planner/stories/{story_id}/workspace-reports",
    response_model=ReportedList,
    operation_id="workspace_reports_api_planner_stories__story_id__workspace_reports_get",
)
async def workspace_reports(
    request: Request,
    stories: Stories,
    who: Caller,
    story_id: Story,
    after: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ReportedList:
    """Every report of the story from a version on, with its summary and the digest of the whole."""
    cut = await sight_of(request).cut(who, await stories.planning.state(story_id))
    reports = [
        _reported(event, payload)
        for event, payload in await stories.history(story_id, cut=cut)
        if isinstance(payload, WorkspaceReported) and event.version > after
    ]
    page = tuple(reports[:limit])
    return ReportedList(items=page, next_after=page[-1].version if len(reports) > limit else None)


@workspace_router.post(
    "/workspace/score", response_model=WorkspaceScore, operation_id="score_report_api_workspace_score_post"
)
async def score_report(stories: Stories, who: Caller, body: ReportToScore) -> WorkspaceScore:
    """What a report would score. Nothing is recorded: recorded scores come from recorded runs alone."""
    report = _parsed(body.report)
    # A report may hold thousands of tests, and the loop has other requests.
    return await asyncio.to_thread(
        score_workspace,
        report,
        rigor=body.rigor,
        config=stories.rules.rigor,
        expected_tree=report.tree_digest,
    )


def _parsed(document: dict[str, Any]) -> WorkspaceReport:
    """The report; InvalidInput points into the body that was sent."""
    try:
        return parse_report(document)
    except InvalidInput as error:
        problems = [{**one, "field": f"/report{one['field']}"} for one in error.details.get("problems", [])]
        raise InvalidInput(error.message, field="report", problems=problems) from error


def _reported(event: StoredEvent, payload: WorkspaceReported) -> ReportedView:
    return ReportedView(
        version=event.version,
        recorded_at=at(event.ts_ms),
        run_id=payload.run_id,
        task_id=payload.task_id,
        tree=payload.tree_digest,
        report_digest=payload.report_digest,
        complete=payload.complete,
        summary=payload.summary,
    )
