"""Commands about calls within a story: what an owner records when somebody asks for one (RT-30..RT-35).

Whoever asks says what is wanted. Everything that a decision depends on beside that comes from the story as recorded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepStarted
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    AlreadyClaimed,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SandboxUnavailable,
)
from fleet.kernel.ids import EntityId, Principal, StepId
from fleet.kernel.types import Frozen
from fleet.log.port import Command
from fleet.owner.journal.step_records import finished_run, started_step
from fleet.owner.journal.steps import StepTerms
from fleet.owner.tools.decisions import decided, facts_of, work_of
from fleet.owner.tools.tool_steps import Asked, parsed, require_room
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import ToolCall, request_document
from fleet.policy.runs.spec import Grantee, RunResult, RunSpec
from fleet.story.commands.command import Caller
from fleet.story.state import StoryState
from fleet.story.tool_steps import session_steps, session_tree


class _CallAsked(Asked):
    session_id: EntityId
    invocation: Annotated[str, Field(pattern=r"^[a-z0-9]{8,40}$")]
    epoch: int
    is_read_only: bool = False
    call: ToolCall


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
    obligations = allowed.obligations
    terms = StepTerms("tool", obligations.effect, obligations.timeout_s)
    work = work_of(asked.call, facts)
    started = started_step(state, step_id, work, digest, allowed, terms, now_ms=bench.now_ms)
    _require_turn(state, asked.session_id, started)
    return (started,)


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


class _RunAsked(Asked):
    run_id: EntityId
    spec: RunSpec


class _RunNamed(Frozen):
    run_id: EntityId


async def request_run(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The run is to be carried out: its step is started (`start_run`). Raises as a call does.

    It is decided as a call of `exec.run`. An approval holds for the whole specification, not for its command alone.
    """
    asked = parsed(_RunAsked, command)
    step_id = StepId(f"run/{asked.run_id}")
    require_room(bench.state, step_id)
    if asked.spec.grantee is not None:
        raise InvalidInput("grantee is set by the fleet: leave it out", field="spec.grantee")
    if asked.spec.interactive:
        raise InvalidInput("a run of a story has no open input: leave interactive out", field="spec.interactive")
    call = ToolCall(tool="exec", op="run", args={"argv": list(asked.spec.argv)})
    facts = facts_of(
        bench, caller, role=asked.as_role, task_id=asked.task_id, epoch=bench.journal.epoch, tree=asked.spec.tree
    )
    facts = replace(facts, environment=f"run:{asked.spec.digest}")
    allowed = await decided(bench, command, call, facts, spec=asked.spec)
    spec = asked.spec.model_copy(update={"grantee": Grantee(role=asked.as_role, tool="exec", op="run")})
    digest = await bench.blobs.put(canonical_json(spec.document))
    # A run is asked for by key, so it can be joined by a next owner.
    terms = StepTerms("run", "KEYED", spec.limits.overall_s)
    return (started_step(bench.state, step_id, work_of(call, facts), digest, allowed, terms, now_ms=bench.now_ms),)


async def request_cancel(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The run has the result `cancelled`, whatever its processes still do (`cancel_run`, RC-24).

    The owner ends the processes. Raises NotFound when there is no such run of this caller, InvalidTransition when it
    is over.
    """
    run_id = parsed(_RunNamed, command).run_id
    step = bench.state.steps.get(f"run/{run_id}")
    if step is None or not (step.started.principal == caller.principal or "po" in caller.roles):
        raise NotFound(f"story {bench.state.story_id} has no run {run_id} of {caller.principal}", run_id=run_id)
    if step.finished is not None:
        raise InvalidTransition(
            f"run {run_id} is over already: {step.finished.outcome}",
            state=step.finished.outcome,
            event="cancel_run",
            allowed=[],
        )
    return (await cancelled_run(bench, step.started),)


async def cancelled_run(bench: Workbench, started: StepStarted) -> StepFinished:
    """The record of a run that was ended before its result was there."""
    spec = RunSpec.model_validate_json(await bench.blobs.get(started.request_digest))
    result = RunResult(status="cancelled", reason="cancelled", exit_code=None, tree_in=spec.tree)
    return await finished_run(bench.blobs, started.step_id, result)
