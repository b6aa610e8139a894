"""Runs of stories for those who asked for them: start, look, lines, end (RC-20..RC-24)."""

from __future__ import annotations

import json
from dataclasses import replace

from fleet.errors import NotFound, from_wire
from fleet.events import StepFinished, decode
from fleet.ids import CommandId, EntityId, Principal, RunKey, StepId, StoryId, derive_id
from fleet.ports import LogPage, SandboxHealth, ToolOrigin
from fleet.services.planning_desk import ANSWER_S, Pending
from fleet.services.run_records import RunRecords
from fleet.services.step_records import run_attempts
from fleet.services.tool_desk_steps import LOOK_S, DeskSteps
from fleet.services.tool_records import RunRecord, unknown_step
from fleet.story import Step
from fleet.tools import RunResult, RunSpec

__all__ = ["ToolRunDesk"]


class ToolRunDesk(DeskSteps):
    """Runs within stories. Errors of the owner arrive as themselves."""

    async def health(self) -> SandboxHealth:
        """What the sandbox enforces (RC-25)."""
        return await self._sandbox.health()

    async def submit_run(
        self,
        story_id: StoryId,
        spec: RunSpec,
        *,
        principal: Principal,
        as_role: str,
        key: str,
        task_id: EntityId | None = None,
        wait_s: float = ANSWER_S,
    ) -> RunRecord:
        """The run is on record as started, or queued for the owner (RC-20). One run per principal and key.

        Raises PolicyDenied, ApprovalRequired, IdempotencyMismatch as `invoke` does.
        """
        run_id = derive_id("rn", story_id, f"{principal}\0{key}")
        # Before the command: a run that nobody finds by its id would be worse than an id without a run.
        await self._sessions.remember(run_id, ToolOrigin(story_id=story_id, principal=principal))
        body = {"run_id": run_id, "as_role": as_role, "task_id": task_id, "spec": spec.model_dump(mode="json")}
        answer = await self._planning.command(
            story_id, "start_run", body, principal=principal, key=f"run/{run_id}", timeout_s=wait_s
        )
        if isinstance(answer, Pending):
            return RunRecord(story_id=story_id, run_id=run_id, status="queued")
        return await self.read_run(story_id, run_id, principal=principal)

    async def read_run(
        self, story_id: StoryId, run_id: EntityId, *, principal: Principal, wait_s: float = 0
    ) -> RunRecord:
        """Where the principal's own run is, at the latest after `wait_s` seconds (RC-21); NotFound if there is none."""
        step_id, sent = StepId(f"run/{run_id}"), CommandId(f"{principal}/run/{run_id}")
        step = await self.own_step(story_id, step_id, principal, sent=sent, wait_s=wait_s)
        if step is None:
            return RunRecord(story_id=story_id, run_id=run_id, status="queued")
        started = step.started
        spec = RunSpec.model_validate_json(await self._blobs.get(started.request_digest))
        record = RunRecord(
            story_id=story_id,
            run_id=run_id,
            status="running",
            task_id=started.task_id,
            key=started.key,
            started_ms=step.started_ms,
            tree_in=spec.tree,
        )
        if step.finished is None:
            return record
        raw = await self._blobs.get(step.finished.result_digest)
        record = replace(record, status="finished", finished_ms=await self._finished_ms(story_id, step_id))
        if step.finished.error_code is not None:
            return replace(record, error=from_wire(json.loads(raw)))
        return replace(record, result=RunResult.model_validate_json(raw))

    async def _finished_ms(self, story_id: StoryId, step_id: StepId) -> int | None:
        for event in reversed(await self._planning.events(story_id)):
            if event.type == "StepFinished":
                payload = decode(event)
                if isinstance(payload, StepFinished) and payload.step_id == step_id:
                    return event.ts_ms
        return None

    async def run_logs(
        self,
        story_id: StoryId,
        run_id: EntityId,
        *,
        principal: Principal | None,
        after: int = 0,
        limit: int = 500,
        wait_s: float = 0,
    ) -> LogPage:
        """Lines of a run with a number above `after` (RC-22); none before it began to run.

        Args:
            principal: whose run it has to be; None for anybody's (AP-82).
        """
        step_id = StepId(f"run/{run_id}")
        step = (await self._planning.state(story_id)).steps.get(step_id)
        if step is None or principal not in (None, step.started.principal):
            raise unknown_step(story_id, step_id)
        key = await self._live_key(story_id, step)
        try:
            return await self._sandbox.logs(key, after=after, limit=limit, wait_s=wait_s)
        except NotFound:
            # On record, and no supervisor has it yet, or none ever will: its record says which.
            await self._clock.sleep(min(wait_s, LOOK_S))
            return LogPage((), is_over=step.finished is not None)

    async def step_logs(
        self, story_id: StoryId, step_id: StepId, *, after: int = 0, limit: int = 500, wait_s: float = 0
    ) -> LogPage:
        """Lines of any run of the story with a number above `after`: live ones, and those of a run that is over.

        Raises NotFound when the story has no such run.
        """
        step = (await self._planning.state(story_id)).steps.get(step_id)
        if step is None or step.started.kind != "run":
            raise unknown_step(story_id, step_id)
        if step.finished is not None:
            return await RunRecords(self._blobs).page(step.finished.result_digest, after=after, limit=limit)
        try:
            return await self._sandbox.logs(step.started.key, after=after, limit=limit, wait_s=wait_s)
        except NotFound:
            await self._clock.sleep(min(wait_s, LOOK_S))
            return LogPage((), is_over=False)

    async def _live_key(self, story_id: StoryId, step: Step) -> RunKey:
        """Of the attempt that a supervisor knows: a takeover of the story may have begun another one."""
        first, *later = run_attempts(story_id, step.started.step_id, step.started.request_digest)
        live = first
        for key in later:
            try:
                await self._sandbox.progress(key)
            except NotFound:
                break
            live = key
        return live

    async def cancel_run(
        self, story_id: StoryId, run_id: EntityId, *, principal: Principal, wait_s: float = ANSWER_S
    ) -> RunRecord:
        """The run is recorded as cancelled and its processes are being ended (RC-24); its end stays if it had one."""
        answer = await self._planning.command(
            story_id,
            "cancel_run",
            {"run_id": run_id},
            principal=principal,
            key=f"cancel-run/{run_id}",
            timeout_s=wait_s,
        )
        if isinstance(answer, Pending):
            return RunRecord(story_id=story_id, run_id=run_id, status="queued")
        return await self.read_run(story_id, run_id, principal=principal)
