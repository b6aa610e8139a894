"""Wire types of what was measured of a story: scores, runs, changes, files."""

from __future__ import annotations

from typing import Any

from fleet.desk.story_pages import RunLine
from fleet.desk.tree_view import FileText, TreeChanges
from fleet.events.workspace import WorkspaceSummary
from fleet.story.state import StoryState
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at


class GateScoreView(Wire):
    """One hard gate."""

    name: str
    ok: bool
    value: bool | int | str | None
    limit: bool | int | str | None


class DimensionView(Wire):
    """One weighted dimension."""

    name: str
    weight: int
    score: str
    evidence: str
    value: bool | int | str | None
    limit: bool | int | str | None


class ScoreView(Wire):
    """What was measured of one tree, and the verdict."""

    tree: str
    run_id: str
    summary: WorkspaceSummary | None
    report_digest: str | None
    complete: bool
    rigor: str | None
    score: str | None
    verdict: str | None
    limited_by: str | None
    gates: tuple[GateScoreView, ...]
    dimensions: tuple[DimensionView, ...]
    reasons: tuple[str, ...]
    is_current: bool


# Source: AP-84.
class ScoreList(Wire):
    """Reports and scores by tree."""

    items: tuple[ScoreView, ...]


def score_list(state: StoryState) -> ScoreList:
    """Every tree of the story that was measured, the oldest first."""
    return ScoreList(items=tuple(_score(state, tree) for tree in state.reports))


def _score(state: StoryState, tree: Any) -> ScoreView:
    report, score = state.reports[tree], state.scores.get(tree)
    return ScoreView(
        tree=tree,
        run_id=report.run_id,
        summary=report.summary,
        report_digest=report.report_digest,
        complete=report.complete,
        rigor=score.rigor if score else None,
        score=score.score if score else None,
        verdict=score.verdict if score else None,
        limited_by=score.limited_by if score else None,
        gates=tuple(GateScoreView(**g.model_dump()) for g in score.gates) if score else (),
        dimensions=tuple(DimensionView(**d.model_dump()) for d in score.dimensions) if score else (),
        reasons=score.reasons if score else (),
        is_current=tree == state.tree,
    )


class RunView(Wire):
    """One run or tool call of a story."""

    step_id: str
    run_id: str | None
    """Of a run that somebody asked for."""
    kind: str
    what: str
    as_role: str
    principal: str
    task_id: str | None
    council_id: str | None
    started_at: str
    status: str
    exit_code: int | None
    reason: str | None
    excerpt: str | None
    logs_url: str | None
    """Where its lines are; none of a call that ran nothing."""


class RunList(Wire):
    """Runs and tool calls, the newest first."""

    items: tuple[RunView, ...]
    next_cursor: str | None = None


def run_list(story_id: str, lines: list[RunLine], next_cursor: str | None) -> RunList:
    """The wire form of runs."""
    return RunList(items=tuple(_run(story_id, line) for line in lines), next_cursor=next_cursor)


def _run(story_id: str, line: RunLine) -> RunView:
    url = f"/api/planner/stories/{story_id}/steps/{line.step_id}/logs" if line.kind == "run" else None
    return RunView(
        step_id=line.step_id,
        run_id=line.run_id,
        kind=line.kind,
        what=line.what,
        as_role=line.as_role,
        principal=line.principal,
        task_id=line.task_id,
        council_id=line.council_id,
        started_at=at(line.started_ms),
        status=line.status,
        exit_code=line.exit_code,
        reason=line.reason,
        excerpt=line.excerpt,
        logs_url=url,
    )


class FileDiff(Wire):
    """One path that differs; `patch` is a unified diff, null for what is no text or too large."""

    path: str
    change: str
    added: int
    removed: int
    patch: str | None


class DiffView(Wire):
    """What differs between two trees of a story."""

    old: str
    new: str
    files: tuple[FileDiff, ...]
    added: int
    removed: int
    left_out: int


def diff_view(changes: TreeChanges) -> DiffView:
    """The wire form of a difference."""
    return DiffView(
        old=changes.old,
        new=changes.new,
        files=tuple(
            FileDiff(path=f.path, change=f.change, added=f.added, removed=f.removed, patch=f.patch)
            for f in changes.files
        ),
        added=sum(f.added for f in changes.files),
        removed=sum(f.removed for f in changes.files),
        left_out=changes.left_out,
    )


class FileEntryView(Wire):
    """One file of a tree."""

    path: str
    mode: str


class FileList(Wire):
    """The files of a tree."""

    tree: str
    items: tuple[FileEntryView, ...]


class FileView(Wire):
    """One file; `text` is null for what is no text, or is too large."""

    path: str
    mode: str
    blob: str
    size_bytes: int
    text: str | None


def file_view(text: FileText) -> FileView:
    """The wire form of a file."""
    return FileView(path=text.path, mode=text.mode, blob=text.blob, size_bytes=text.size_bytes, text=text.text)
