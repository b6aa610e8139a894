"""Runs as the outside asks for them, TaskSpec in and TaskResult out: what every front offers (RC-20..RC-26)."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from fleet.desk.tools.desk import ToolDesk
from fleet.desk.tools.records import RunRecord
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.task import TaskEstimated, TaskTransitioned, TreeMerged
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import FINAL_STATUSES, RunStatus
from fleet.policy.runs.task_plan import TaskCaps, run_of_task, task_result
from fleet.policy.runs.task_spec import TaskResult, TaskSpec
from fleet.sandbox.port import LogPage, SandboxHealth
from fleet.story.state import StoryState

_WORKSPACE = "/workspace"


@dataclass(frozen=True, slots=True)
class TaskTicket:
    """What a caller holds of a run that was asked for."""

    task_id: EntityId
    status: RunStatus


@dataclass(frozen=True, slots=True)
class CopiedArtifact:
    """One declared output and where its bytes are; no reference when the run left none."""

    path: str
    ref: Digest | None
    size_bytes: int = 0
    truncated: bool = False
    missing: bool = False


class TaskDesk:
    """The methods of the runner contract. A run is named by its id; its story only where nobody knows the id any more.

    Whose a run is decides who may ask for it: to everybody else it is not there.
    """

    def __init__(self, tools: ToolDesk) -> None:
        self._tools = tools

    async def story_of(
        self, run_id: EntityId, *, principal: Principal | None, story_id: StoryId | None = None
    ) -> StoryId:
        """The story of the run; NotFound when it is somebody else's, or nobody knows any more."""
        return await self._tools.story_of(run_id, principal=principal, story_id=story_id)

    async def run_task(self, task: TaskSpec, *, principal: Principal, key: str) -> TaskTicket:
        """The run is on record, or queued for the owner of its story; nothing is waited for but that (RC-20).

        Raises PolicyDenied, ApprovalRequired, InvalidInput, StoryNotFound; IdempotencyMismatch when the key asked for
        another run.
        """
        policy = self._tools.policy
        declared = policy.capability("exec", "run")
        caps = TaskCaps(overall_s=declared.declared.timeout_s) if declared else None
        spec = run_of_task(task, images=policy.toolchains.keys(), caps=caps)
        context = task.context
        record = await self._tools.submit_run(
            context.story_id, spec, principal=principal, as_role=context.role, key=key, task_id=context.task_id
        )
        return TaskTicket(record.run_id, _status(record))

    async def await_result(
        self, run_id: EntityId, *, principal: Principal, story_id: StoryId | None = None, timeout_s: float = 0
    ) -> TaskResult:
        """How the run ended, or where it is once `timeout_s` seconds are over (RC-21).

        Raises NotFound, and what the owner said when it refused the run.
        """
        return _told(await self._record(run_id, principal=principal, story_id=story_id, wait_s=timeout_s))

    async def logs(
        self,
        run_id: EntityId,
        *,
        principal: Principal | None,
        story_id: StoryId | None = None,
        after: int = 0,
        limit: int = 500,
        wait_s: float = 0,
    ) -> LogPage:
        """Lines with a number above `after`; of anybody's run when no principal is named (RC-22, AP-82)."""
        story = await self._tools.story_of(run_id, principal=principal, story_id=story_id)
        try:
            return await self._tools.run_logs(
                story, run_id, principal=principal, after=after, limit=limit, wait_s=wait_s
            )
        except NotFound:
            if principal is None:
                raise
            # Asked for and not decided yet: it has no lines. A run that was refused says so here.
            await self._record(run_id, principal=principal, story_id=story, wait_s=wait_s)
            return LogPage((), is_over=False)

    async def follow(
        self, run_id: EntityId, *, principal: Principal | None, story_id: StoryId, after: int = 0, heartbeat_s: float
    ) -> AsyncIterator[LogLine | None]:
        """Lines as they come, until the run is over; None when there was none for a heartbeat (RC-22)."""
        while True:
            page = await self.logs(run_id, principal=principal, story_id=story_id, after=after, wait_s=heartbeat_s)
            for line in page.lines:
                after = line.n
                yield line
            if page.is_over:
                return
            if not page.lines:
                yield None

    async def copy_artifacts(
        self, run_id: EntityId, paths: tuple[str, ...], *, principal: Principal, story_id: StoryId | None = None
    ) -> tuple[CopiedArtifact, ...]:
        """Where the declared outputs are; all of them when no path is named. A missing one is listed (RC-23).

        Raises InvalidInput for a path that was not declared, InvalidTransition while the run is under way.
        """
        record = await self._record(run_id, principal=principal, story_id=story_id)
        if record.result is None:
            status = _status(record)
            raise InvalidTransition(
                f"run {run_id} is {status}: its artifacts are kept when it ends",
                state=status,
                event="copy_artifacts",
                allowed=[],
            )
        kept = {f"{_WORKSPACE}/{a.path}": a for a in record.result.artifacts}
        names = tuple(map(_plain, paths)) or tuple(kept)
        if unknown := [path for path in names if path not in kept]:
            raise InvalidInput(
                f"run {run_id} declared no artifact {unknown[0][:200]!r}", field="paths", allowed=sorted(kept)
            )
        return tuple(
            CopiedArtifact(
                path=path,
                ref=kept[path].blob,
                size_bytes=kept[path].size_bytes,
                truncated=kept[path].truncated,
                missing=kept[path].blob is None,
            )
            for path in names
        )

    async def cancel(self, run_id: EntityId, *, principal: Principal, story_id: StoryId | None = None) -> TaskResult:
        """The run is recorded as cancelled and its processes are being ended; one that is over is unchanged (RC-24)."""
        record = await self._record(run_id, principal=principal, story_id=story_id)
        if record.status == "finished":
            return _told(record)
        try:
            record = await self._tools.cancel_run(record.story_id, run_id, principal=principal)
        except InvalidTransition:
            # It ended in between.
            record = await self._record(run_id, principal=principal, story_id=record.story_id)
        return _told(record)

    async def health(self) -> SandboxHealth:
        """What the sandbox enforces, and how much is under way (RC-25)."""
        return await self._tools.health()

    async def _record(
        self, run_id: EntityId, *, principal: Principal, story_id: StoryId | None, wait_s: float = 0
    ) -> RunRecord:
        story = await self._tools.story_of(run_id, principal=principal, story_id=story_id)
        return await self._tools.read_run(story, run_id, principal=principal, wait_s=wait_s)


def _status(record: RunRecord) -> RunStatus:
    if record.result is not None:
        return record.result.status
    if record.error is not None:
        return "error"
    return "pending" if record.status == "queued" else "running"


def _told(record: RunRecord) -> TaskResult:
    result = task_result(
        run_id=record.run_id,
        story_id=record.story_id,
        task_id=record.task_id,
        tree_in=record.tree_in,
        status=_status(record),
        result=record.result,
        problem=record.error.to_wire() if record.error else None,
        key=record.key,
        started_ms=record.started_ms,
        finished_ms=record.finished_ms,
    )
    assert (result.status in FINAL_STATUSES) == (record.status == "finished")
    return result


def _plain(path: str) -> str:
    return posixpath.normpath(path if path.startswith("/") else f"{_WORKSPACE}/{path}")


@dataclass(frozen=True, slots=True)
class TaskMove:
    """One step of the workflow, and when it was recorded."""

    version: int
    ts_ms: int
    step: TaskTransitioned


@dataclass(frozen=True, slots=True)
class TaskEvidence:
    """What is on record about the work of a task; trees and runs by their ids."""

    candidate_tree: Digest | None
    run_id: str | None
    """Of the run that measured the work under review."""
    score: str | None
    verdict: str | None
    merged_commit: str | None
    councils: tuple[str, ...]
    runs: tuple[str, ...]
    """Steps that ran programs for the task."""


def moves_of(events: Sequence[tuple[StoredEvent, Payload]], task_id: str) -> tuple[TaskMove, ...]:
    """The steps of the task in order."""
    return tuple(
        TaskMove(event.version, event.ts_ms, payload)
        for event, payload in events
        if isinstance(payload, TaskTransitioned) and payload.task_id == task_id
    )


def estimate_of(events: Sequence[tuple[StoredEvent, Payload]], task_id: str) -> TaskEstimated | None:
    """The last estimate that a council gave of the task; None when none did (PL-81)."""
    estimates = (p for _, p in reversed(events) if isinstance(p, TaskEstimated) and p.task_id == task_id)
    return next(estimates, None)


def evidence_on(
    state: StoryState, events: Sequence[tuple[StoredEvent, Payload]], task_id: str, moves: Sequence[TaskMove]
) -> TaskEvidence:
    """What is on record about the work of the task now. Of a tree without a score nothing is measured."""
    task = state.tasks[task_id]
    score = state.scores.get(task.candidate_tree) if task.candidate_tree else None
    merges = [p for _, p in events if isinstance(p, TreeMerged) and p.task_id == task_id]
    is_done = bool(moves) and task.state == "done"
    return TaskEvidence(
        candidate_tree=task.candidate_tree,
        run_id=score.run_id if score else None,
        score=score.score if score else None,
        verdict=score.verdict if score else None,
        merged_commit=merges[-1].commit if merges and is_done else None,
        councils=tuple(k for k, c in state.councils.items() if c.opened.task_id == task_id),
        runs=tuple(
            name
            for name, step in state.steps.items()
            if step.started.task_id == task_id and step.started.kind in ("run", "tool", "merge")
        ),
    )
