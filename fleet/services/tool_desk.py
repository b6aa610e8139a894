"""Tools and runs within stories, from whichever door they come: what the HTTP and MCP fronts use.

A call goes to the owner of its story as a command and is decided there; what came of it is read from the log. Nothing
here decides, and nothing that a caller wrote opens anything.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fleet.context import RowCut
from fleet.errors import ArtifactNotFound, from_wire
from fleet.ids import CommandId, Digest, EntityId, Principal, StepId, StoryId
from fleet.ports import ToolOrigin
from fleet.services.planning_desk import ANSWER_S, Pending
from fleet.services.tool_records import Invocation, entity_of, outputs_of
from fleet.services.tool_run_desk import ToolRunDesk
from fleet.services.tool_session_desk import ToolSessionDesk
from fleet.tools import Policy, ToolCall, ToolOutcome

__all__ = ["ToolDesk"]


class ToolDesk(ToolSessionDesk, ToolRunDesk):
    """Sessions, tool calls and runs. Errors of the owner arrive as themselves."""

    @property
    def policy(self) -> Policy:
        """The active policy, with the declarations of every tool (AP-93)."""
        return self._policy

    async def invoke(
        self, session_id: EntityId, call: ToolCall, *, principal: Principal, key: str, wait_s: float = ANSWER_S
    ) -> Invocation:
        """The call was decided by the owner of the story, and is under way or over; one call per session and key.

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
            session.story_id, "invoke_tool", body, principal=principal, key=f"invoke/{step_id}", timeout_s=wait_s
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
        found = await self.story_of(invocation_id, principal=principal, story_id=story_id)
        session, _, invocation = invocation_id.rpartition("-")
        return await self.read_invocation(
            found, StepId(f"tool/{session}/{invocation}"), principal=principal, wait_s=wait_s
        )

    async def blob(self, digest: Digest) -> bytes:
        """The bytes of an output that the caller was told of; ArtifactNotFound when they are gone."""
        return await self._blobs.get(digest)

    async def artifact(self, story_id: StoryId, digest: Digest, *, cut: RowCut | None = None) -> bytes:
        """The bytes of an output that a call or run of the story left (AP-89); of a cut one for a shown task.

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
