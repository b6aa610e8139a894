"""Commands about calls within a story: what an owner records when somebody asks for one (RT-30..RT-35).

Whoever asks says what is wanted. Everything that a decision depends on beside that comes from the story as recorded.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fleet.digest import canonical_json
from fleet.errors import AlreadyClaimed, InvalidTransition, NotFound, PolicyDenied, SandboxUnavailable
from fleet.events import Payload, StepStarted, TaskClaimed
from fleet.ids import EntityId, Principal, StepId
from fleet.ports import Command
from fleet.services.tool_decisions import decided
from fleet.services.tool_facts import facts_of, roles_held
from fleet.services.tool_steps import Asked, parsed, require_room, started_step
from fleet.services.workbench import Workbench
from fleet.story import Caller, StoryState, claimed_by, session_steps, session_tree
from fleet.tools import ToolCall, request_document

__all__ = ["request_call", "request_claim"]


class _CallAsked(Asked):
    session_id: EntityId
    invocation: Annotated[str, Field(pattern=r"^[a-z0-9]{8,40}$")]
    epoch: int
    is_read_only: bool = False
    call: ToolCall


class _TaskNamed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    as_role: str
    task_id: EntityId


async def request_call(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The call is to be carried out: its step is started (`invoke_tool`).

    Raises:
        PolicyDenied: it is refused, and the refusal is on record.
        ApprovalRequired: it waits for a person; the one request for it is on record.
        IdempotencyMismatch: this invocation was used before.
        AlreadyClaimed: another call of the session changes its workspace now.
    """
    asked = parsed(_CallAsked, command)
    if bench.tools is None:
        raise SandboxUnavailable("this council shard has no tools wired: nothing was started")
    state, step_id = bench.state, StepId(f"tool/{asked.session_id}/{asked.invocation}")
    require_room(state, step_id)
    _require_own(state, asked.session_id, caller)
    facts = facts_of(
        bench,
        caller,
        role=asked.as_role,
        task_id=asked.task_id,
        epoch=asked.epoch,
        tree=session_tree(state, asked.session_id, asked.task_id),
        is_read_only=asked.is_read_only,
    )
    allowed = await decided(bench, command, asked.call, facts)
    document = request_document(asked.call, facts)
    digest = await bench.blobs.put(canonical_json(document))
    started = started_step(bench, step_id, allowed, facts, asked.call, digest=digest)
    _require_turn(state, asked.session_id, started)
    return (started,)


async def request_claim(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The caller alone has the task for as long as the workflow says (`claim_task`, LC-130).

    Raises NotFound: no such task. PolicyDenied: the caller does not hold the role of the task. InvalidTransition: it
    is not being worked on. AlreadyClaimed: somebody else has it.
    """
    asked = parsed(_TaskNamed, command)
    state = bench.state
    task = state.tasks.get(asked.task_id)
    if task is None:
        raise NotFound(f"story {state.story_id} has no task {asked.task_id}", task_id=asked.task_id)
    held = roles_held(bench.journal.policy.policy, caller.principal, caller.roles)
    if task.task.role not in held or asked.as_role != task.task.role:
        raise PolicyDenied(f"task {asked.task_id} is for role {task.task.role}", rule_id="role_not_held")
    if task.state != "implementing" or state.is_over:
        raise InvalidTransition(
            f"task {asked.task_id} is {task.state}: only one that is being implemented can be claimed",
            state=task.state,
            event="claim_task",
            allowed=[],
        )
    holder = claimed_by(state, asked.task_id, now_ms=bench.now_ms)
    if holder not in (None, caller.principal):
        raise AlreadyClaimed(f"task {asked.task_id} is claimed by {holder}", holder=holder, task_id=asked.task_id)
    ttl_s = bench.rules.fsm.task_workflow.claim_ttl_s.get(task.state, 7200)
    expires_at = bench.now_ms + ttl_s * 1000
    return (
        TaskClaimed(task_id=task.task.task_id, state="implementing", principal=caller.principal, expires_at=expires_at),
    )


def _require_own(state: StoryState, session_id: EntityId, caller: Caller) -> None:
    owners: set[Principal] = {step.started.principal for step in session_steps(state, session_id)}
    if owners - {caller.principal}:
        raise PolicyDenied(f"session {session_id} is not that of {caller.principal}", rule_id="session_not_own")


def _require_turn(state: StoryState, session_id: EntityId, started: StepStarted) -> None:
    """Two calls that change one workspace would each begin with the same tree, and one change would be lost."""
    if started.effect == "PURE":
        return
    for step in session_steps(state, session_id):
        if step.finished is None and step.started.effect != "PURE":
            raise AlreadyClaimed(
                f"call {step.started.step_id} changes the workspace of session {session_id}: wait for it",
                holder=step.started.step_id,
            )
