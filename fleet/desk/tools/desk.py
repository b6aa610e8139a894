"""Tools and runs within stories, from whichever door they come: what the HTTP and MCP fronts use.

A call goes to the owner of its story as a command and is decided there; what came of it is read from the log. Nothing
here decides, and nothing that a caller wrote opens anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet.context.row_cut import RowCut
from fleet.desk.planning import ANSWER_S, Pending, PlanningDesk
from fleet.desk.tools.records import Invocation, RunRecord, entity_of, outputs_of, unknown_step
from fleet.events.codec import decode
from fleet.events.step import StepFinished
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ArtifactNotFound, IdempotencyMismatch, NotFound, from_wire
from fleet.kernel.ids import CommandId, Digest, EntityId, Principal, RunKey, StepId, StoryId, derive_id
from fleet.owner.journal.step_records import run_attempts
from fleet.policy.capabilities import Capability
from fleet.policy.roles import require_chosen, roles_held
from fleet.policy.rules.calls import ToolCall
from fleet.policy.rules.config import Policy
from fleet.policy.rules.matrix import offered
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import LogPage, Sandbox, SandboxHealth
from fleet.sandbox.service.runs import RunRecords
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import Step
from fleet.tools.port import SESSION_IDLE_S, ToolOrigin, ToolSession, ToolSessions
from fleet.trees.port import BlobStore

LOOK_S = 0.2
"""Until the log is looked at again while a result is waited for; longer after each look."""
_LONGEST_LOOK_S = 1.0


class ToolDesk:
    """Tool sessions, calls and runs within stories, each for whoever asked for it.

    Errors of the owner arrive as themselves.

    Args:
        planning: how commands reach the owner of a story, and how a story is read.
        roles_of: the roles that a principal holds by the registry.
    """

    def __init__(
        self,
        *,
        planning: PlanningDesk,
        sessions: ToolSessions,
        blobs: BlobStore,
        sandbox: Sandbox,
        clock: Clock,
        policy: Policy,
        roles_of: Callable[[Principal], frozenset[str]],
    ) -> None:
        self._planning, self._sessions, self._blobs, self._sandbox = planning, sessions, blobs, sandbox
        self._clock, self._policy, self._roles_of = clock, policy, roles_of

    async def story_of(
        self, entity_id: EntityId, *, principal: Principal | None, story_id: StoryId | None = None
    ) -> StoryId:
        """The story that a session or run belongs to; `story_id` when the caller named it.

        Args:
            principal: whose it has to be; None for anybody's.

        Raises NotFound when it is somebody else's, or when nobody knows any more: then the story has to be named.
        """
        if story_id is not None:
            return story_id
        origin = await self._sessions.origin_of(entity_id)
        if origin is None or principal not in (None, origin.principal):
            raise NotFound(f"nothing is known of {entity_id}; if it is an old one, add storyId", id=entity_id)
        return origin.story_id

    async def own_step(
        self, story_id: StoryId, step_id: StepId, principal: Principal, *, sent: CommandId, wait_s: float
    ) -> Step | None:
        """The principal's step once it is settled or the time is over; None while its command waits for the owner.

        Raises what the owner said when it refused, NotFound when nobody asked for the step.
        """
        until_ms, look_s = self._clock.monotonic_ms() + round(wait_s * 1000), LOOK_S
        while True:
            step = (await self._planning.state(story_id)).steps.get(step_id)
            if step is None and not await self._is_queued(story_id, step_id, principal, sent):
                step = (await self._planning.state(story_id)).steps.get(step_id)
                if step is None:
                    raise unknown_step(story_id, step_id)
            # Whether somebody else's call exists is none of the caller's business.
            if step is not None and step.started.principal != principal:
                raise unknown_step(story_id, step_id)
            is_settled = step is not None and (step.finished is not None or step.is_unresolved)
            left_s = (until_ms - self._clock.monotonic_ms()) / 1000
            if is_settled or left_s <= 0:
                return step
            await self._clock.sleep(min(look_s, left_s))
            look_s = min(look_s * 1.5, _LONGEST_LOOK_S)

    async def _is_queued(self, story_id: StoryId, step_id: StepId, principal: Principal, sent: CommandId) -> bool:
        origin = await self._sessions.origin_of(entity_of(step_id))
        if origin is None or (origin.story_id, origin.principal) != (story_id, principal):
            return False
        return await self._planning.answer(sent) is None

    # Sessions

    async def open_session(
        self,
        story_id: StoryId,
        *,
        principal: Principal,
        as_role: str,
        key: str,
        task_id: EntityId | None = None,
        is_read_only: bool = False,
    ) -> ToolSession:
        """A session bound to principal, role, story, task, phase and epoch, with the operations offered (RT-68).

        The same principal and key give the same session while it lives.

        Raises StoryNotFound; NotFound: the story has no such task; PolicyDenied: the role is not held or not declared;
        IdempotencyMismatch: the key opened another session of the story.
        """
        state = await self._planning.state(story_id)
        held = roles_held(self._policy.roles, principal, self._roles_of(principal))
        require_chosen(principal, held & self._policy.roles.roles.keys(), as_role)
        if task_id is not None and task_id not in state.tasks:
            raise NotFound(f"story {story_id} has no task {task_id}", task_id=task_id)
        phase = self._planning.fsm_of(state).lifecycles[state.lifecycle].phase(state.state)
        operations = offered(self._policy, as_role, phase=phase, is_read_only=is_read_only)
        session = ToolSession(
            session_id=derive_id("se", story_id, f"{principal}\0{key}\0{state.epoch}"),
            principal=principal,
            role=as_role,
            story_id=story_id,
            task_id=task_id,
            phase=phase,
            epoch=state.epoch,
            is_read_only=is_read_only,
            offered=tuple(c.name for c in operations),
        )
        opened = await self._sessions.open(session, idle_s=SESSION_IDLE_S)
        asked = (as_role, task_id, is_read_only)
        if (opened.role, opened.task_id, opened.is_read_only) != asked:
            raise IdempotencyMismatch(f"key {key!r} opened another session: send a new one with a new key")
        await self._sessions.remember(opened.session_id, ToolOrigin(story_id=story_id, principal=principal))
        return opened

    async def session(self, session_id: EntityId, *, principal: Principal) -> ToolSession:
        """The principal's own session, alive for another 3,600 s; NotFound when it is over, with its task or story."""
        session = await self._sessions.use(session_id, idle_s=SESSION_IDLE_S)
        if session is None or session.principal != principal:
            raise NotFound(f"there is no tool session {session_id}: open one", session_id=session_id)
        state = await self._planning.state(session.story_id)
        task = state.tasks.get(session.task_id or "")
        if state.is_over or (task is not None and task.is_terminal):
            await self._sessions.close(session_id)
            raise NotFound(f"tool session {session_id} ended with its task or story", session_id=session_id)
        return session

    async def close_session(self, session_id: EntityId, *, principal: Principal) -> None:
        """The session is over, also when it was before; NotFound when it is not the principal's."""
        await self.story_of(session_id, principal=principal)
        await self._sessions.close(session_id)

    async def tools(self, session_id: EntityId, *, principal: Principal) -> tuple[Capability, ...]:
        """The operations that were offered when the session was opened, with their typed arguments (RT-35)."""
        session = await self.session(session_id, principal=principal)
        capabilities = self._policy.capabilities
        return tuple(capabilities[name] for name in session.offered if name in capabilities)

    # Runs

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
            story_id, parse_command("start_run", body), principal=principal, key=f"run/{run_id}", timeout_s=wait_s
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
            parse_command("cancel_run", {"run_id": run_id}),
            principal=principal,
            key=f"cancel-run/{run_id}",
            timeout_s=wait_s,
        )
        if isinstance(answer, Pending):
            return RunRecord(story_id=story_id, run_id=run_id, status="queued")
        return await self.read_run(story_id, run_id, principal=principal)

    # Calls

    @property
    def policy(self) -> Policy:
        """The active policy, with the declarations of every tool (AP-93)."""
        return self._policy

    async def invoke(
        self, session_id: EntityId, call: ToolCall, *, principal: Principal, key: str, wait_s: float = ANSWER_S
    ) -> Invocation:
        """The call was decided by the owner of the story, and is under way or over. One call per session and key.

        Waits up to `wait_s` seconds for the result, then `read_invocation` goes on. After a person's yes the call is
        made again under a new key.

        Raises:
            PolicyDenied: refused; the denial is on record.
            ApprovalRequired: a person has to say yes first; details name gate and approval id.
            IdempotencyMismatch: the key was used for another call.
        """
        session = await self.session(session_id, principal=principal)
        invocation = _hash(key)
        body: dict[str, Any] = {
            "session_id": session.session_id,
            "invocation": invocation,
            "as_role": session.role,
            "task_id": session.task_id,
            "epoch": session.epoch,
            "is_read_only": session.is_read_only,
            "call": call.model_dump(mode="json"),
        }
        step_id = StepId(f"tool/{session.session_id}/{invocation}")
        origin = ToolOrigin(story_id=session.story_id, principal=principal)
        await self._sessions.remember(entity_of(step_id), origin)
        # The owner's patience and the tool's time are waited for together.
        until_ms = self._clock.monotonic_ms() + round(wait_s * 1000)
        answer = await self._planning.command(
            session.story_id,
            parse_command("invoke_tool", body),
            principal=principal,
            key=f"invoke/{step_id}",
            timeout_s=wait_s,
        )
        if isinstance(answer, Pending):
            return Invocation(story_id=session.story_id, step_id=step_id, status="queued")
        left_s = max(0.0, (until_ms - self._clock.monotonic_ms()) / 1000)
        return await self.read_invocation(session.story_id, step_id, principal=principal, wait_s=left_s)

    async def read_invocation(
        self, story_id: StoryId, step_id: StepId, *, principal: Principal, wait_s: float = 0
    ) -> Invocation:
        """Where the principal's own call is, at the latest after `wait_s` seconds; NotFound when there is none."""
        sent = CommandId(f"{principal}/invoke/{step_id}")
        step = await self.own_step(story_id, step_id, principal, sent=sent, wait_s=wait_s)
        if step is None:
            return Invocation(story_id=story_id, step_id=step_id, status="queued")
        if step.finished is None:
            status = "unknown" if step.is_unresolved else "running"
            return Invocation(story_id=story_id, step_id=step_id, status=status)
        raw = await self._blobs.get(step.finished.result_digest)
        if step.finished.error_code is not None:
            error = from_wire(json.loads(raw))
            return Invocation(story_id=story_id, step_id=step_id, status="finished", error=error)
        outcome = (
            ToolOutcome(outcome="succeeded", reason="resolved", content=json.loads(raw))
            if step.finished.reason == "resolved"
            else ToolOutcome.model_validate_json(raw)
        )
        return Invocation(story_id=story_id, step_id=step_id, status="finished", outcome=outcome)

    async def invocation(
        self, invocation_id: EntityId, *, principal: Principal, story_id: StoryId | None = None, wait_s: float = 0
    ) -> Invocation:
        """As `read_invocation`, by the id that `invoke` gave."""
        story = await self.story_of(invocation_id, principal=principal, story_id=story_id)
        session, _, invocation = invocation_id.rpartition("-")
        return await self.read_invocation(
            story, StepId(f"tool/{session}/{invocation}"), principal=principal, wait_s=wait_s
        )

    async def blob(self, digest: Digest) -> bytes:
        """The bytes of an output that the caller was told of; ArtifactNotFound when they are gone."""
        return await self._blobs.get(digest)

    async def artifact(self, story_id: StoryId, digest: Digest, *, cut: RowCut | None = None) -> bytes:
        """The bytes of an output that a call or run of the story left (AP-89). Of a cut one for a shown task.

        Raises ArtifactNotFound when the story names no such output: that it is one of another story is not told.
        """
        for step in reversed(list((await self._planning.state(story_id)).steps.values())):
            if step.finished is None or (cut is not None and step.started.task_id not in cut.rows.shown):
                continue
            if any(a.artifact_digest == digest for a in step.finished.artifacts):
                return await self._blobs.get(digest)
            if step.started.kind in ("run", "tool") and step.finished.error_code is None:
                raw = await self._blobs.get(step.finished.result_digest)
                if digest in outputs_of(raw, is_run=step.started.kind == "run"):
                    return await self._blobs.get(digest)
        raise ArtifactNotFound(f"story {story_id} names no output {digest}", digest=digest)

    async def decision(self, command_id: CommandId) -> dict[str, Any] | None:
        """What the owner said to a queued command; None while it did not. Raises what the owner raised."""
        return await self._planning.answer(command_id)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:24]
