"""Commands about runs within a story: what an owner records when somebody asks for one or ends it (RC-20, RC-24)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from fleet.digest import canonical_json
from fleet.errors import InvalidInput, InvalidTransition, NotFound
from fleet.events import Payload, Reserve, StepFinished, StepStarted
from fleet.ids import EntityId, StepId
from fleet.ports import Command
from fleet.services.step_records import finished_run
from fleet.services.tool_decisions import decided
from fleet.services.tool_facts import facts_of
from fleet.services.tool_steps import Asked, parsed, require_room, started_step
from fleet.services.workbench import Workbench
from fleet.story import Caller
from fleet.tools import Grantee, RunResult, RunSpec, ToolCall

__all__ = ["cancelled_run", "request_cancel", "request_run"]


class _RunAsked(Asked):
    run_id: EntityId
    spec: RunSpec


class _RunNamed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

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
    started = started_step(bench, step_id, allowed, facts, call, digest=digest)
    wall_s = spec.limits.overall_s
    return (
        started.model_copy(
            update={
                "kind": "run",
                # A run is asked for by key, so it can be joined by a next owner.
                "effect": "KEYED",
                "deadline_ms": bench.now_ms + wall_s * 1000,
                "reserve": Reserve(wall_ms=wall_s * 1000),
            }
        ),
    )


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
