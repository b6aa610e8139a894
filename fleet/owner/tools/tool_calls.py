"""Carrying out the tool calls and runs that were asked for within a story, beside its own procedures.

What is to be done is read from the story alone, so that a next owner goes on where this one stopped: PURE and KEYED
calls are made again under their one key, UNSAFE ones are never repeated (RC-50..RC-52).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepStarted
from fleet.events.story import StoryParked
from fleet.kernel.errors import (
    CommitUnknown,
    FleetError,
    IdempotencyMismatch,
    InvalidInput,
    OutcomeUnknown,
    OwnershipError,
    PolicyDenied,
    Retry,
    StoreUnavailable,
    ToolFailed,
    VersionConflict,
)
from fleet.kernel.ids import Digest, StepId
from fleet.owner.journal.step_records import denied_call, failed_step, finished_call, finished_run, run_attempts
from fleet.owner.journal.steps import Seat, Work
from fleet.owner.tools.decisions import call_tool, context_of, facts_of
from fleet.owner.workbench import Workbench
from fleet.policy.rules.calls import ToolCall
from fleet.policy.rules.policy import obligations_of
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunSpec
from fleet.story.commands.calls import cancelled_run
from fleet.story.commands.command import Caller
from fleet.story.state import Step
from fleet.story.tool_steps import asked_steps, base_tree, due_of, open_asked_steps, session_steps
from fleet.tools.port import ToolContext

T = TypeVar("T")

_TRIES = 5
_BACKOFF_S = 2.0
_NOTHING_HAPPENED = (PolicyDenied, ToolFailed, InvalidInput, IdempotencyMismatch)
"""Errors of an UNSAFE call that say for certain that it was not made."""


class ToolCalls:
    """The calls and runs of one story under one tenure, each a task of its own.

    Args:
        changed: called after something was recorded, for the owner to look at the story again.
    """

    def __init__(self, bench: Workbench, *, changed: Callable[[], None] = lambda: None) -> None:
        self._bench, self._changed = bench, changed
        self._tasks: dict[StepId, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Whatever is due has a task, and what was given up has none."""
        if not self._bench.journal.exists:
            return
        for step in asked_steps(self._bench.state):
            step_id = step.started.step_id
            task = self._tasks.get(step_id)
            if step.finished is not None:
                if task is not None and not task.done() and task is not asyncio.current_task():
                    self._give_up(step, task)
                self._tasks.pop(step_id, None)
                continue
            is_dispatched = task is not None and not (task.done() and step.resolution)
            match due_of(step, epoch=self._bench.journal.epoch, is_dispatched=is_dispatched):
                case "carry_out":
                    work = self._run(step) if step.started.kind == "run" else self._call(step)
                case "declare_unknown":
                    work = self._declare_unknown(step)
                case "conclude":
                    work = self._conclude(step)
                case None:
                    continue
            self._tasks[step_id] = asyncio.create_task(self._guarded(step, work), name=f"step {step_id}")

    async def close(self) -> None:
        """No task is left; what was under way is for the next owner."""
        tasks = [*self._tasks.values(), *self._endings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self, step: Step, task: asyncio.Task[None]) -> None:
        task.cancel()
        if step.started.kind == "run":
            ending = asyncio.create_task(self._end_run(step.started))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def _end_run(self, started: StepStarted) -> None:
        for key in run_attempts(self._bench.state.story_id, started.step_id, started.request_digest):
            with contextlib.suppress(FleetError):
                await self._bench.journal.cancel_run(key)

    async def _guarded(self, step: Step, work: Awaitable[None]) -> None:
        try:
            await work
        except OwnershipError:
            return  # the story is somebody else's, who goes on
        except Exception as error:
            # The task boundary of a call: a defect of ours ends this call, and never its story.
            failure = error if isinstance(error, FleetError) else FleetError(f"{type(error).__name__}: {error}")
            with contextlib.suppress(FleetError):
                await self._failed(step, failure)
        self._changed()

    async def _call(self, step: Step) -> None:
        began_ms = self._bench.clock.monotonic_ms()
        call, context = await self._context(step)
        try:
            # Only what may be made again is tried again.
            times = 1 if context.obligations.effect == "UNSAFE" else _TRIES
            outcome = await self._tried(lambda: call_tool(self._bench, call, context), times=times)
        except OwnershipError:
            raise
        except Exception as error:
            if step.started.effect == "UNSAFE" and not isinstance(error, _NOTHING_HAPPENED):
                await self._declare_unknown(step)
                return
            if not isinstance(error, FleetError):
                raise
            await self._failed(step, error)
            return
        spent_ms = self._bench.clock.monotonic_ms() - began_ms
        finished = await self._stored(
            lambda: finished_call(
                self._bench.blobs, step.started.step_id, outcome, tree_in=context.tree, latency_ms=spent_ms
            )
        )
        await self._finish(step, finished)

    async def _context(self, step: Step) -> tuple[ToolCall, ToolContext]:
        bench, started = self._bench, step.started
        raw = await self._stored(lambda: bench.blobs.get(started.request_digest))
        request = json.loads(raw)
        call = ToolCall(tool=request["tool"], op=request["op"], args=request["args"])
        caller = Caller(principal=started.principal, roles=frozenset({started.as_role}))
        facts = facts_of(
            bench,
            caller,
            role=started.as_role,
            task_id=started.task_id,
            epoch=bench.journal.epoch,
            tree=_tree_in(request),
        )
        session = started.step_id.split("/")[1]
        first = session_steps(bench.state, session)[0]
        base = await self._tree_before(first) or base_tree(bench.state, started.task_id)
        obligations = obligations_of(call, facts, policy=bench.journal.policy.policy, consumes=started.approval_id)
        # Where it was addressed to is part of what was asked for, whatever the policy names by now.
        asked = replace(facts, environment=request["environment"])
        context = await self._stored(
            lambda: context_of(bench, call, asked, obligations, key=started.key, base_tree=base)
        )
        return call, context

    async def _tree_before(self, step: Step) -> Digest | None:
        """What the session began with."""
        raw = await self._stored(lambda: self._bench.blobs.get(step.started.request_digest))
        return _tree_in(json.loads(raw))

    async def _tried(self, attempt: Callable[[], Awaitable[T]], *, times: int = _TRIES) -> T:
        """What comes of it; what may go away by itself is tried again."""
        for number in range(1, times + 1):
            try:
                return await attempt()
            except OwnershipError:
                raise
            except FleetError as error:
                # A host that did not answer in all its time is not waited for as long again.
                is_silent = isinstance(error.__cause__, TimeoutError)
                if error.retry is not Retry.LATER or number == times or is_silent:
                    raise
            await self._bench.clock.sleep(_BACKOFF_S * number)
        raise AssertionError("unreachable")

    async def _run(self, step: Step) -> None:
        bench, started = self._bench, step.started
        spec = RunSpec.model_validate_json(await self._stored(lambda: bench.blobs.get(started.request_digest)))
        is_unsafe = started.effect == "UNSAFE"
        try:
            result = await self._tried(lambda: bench.journal.run_by_key(started.step_id, spec, is_unsafe=is_unsafe))
        except OwnershipError:
            raise
        except FleetError as error:
            await self._failed(step, error)
            return
        await self._finish(step, await self._stored(lambda: finished_run(bench.blobs, started.step_id, result)))

    async def _failed(self, step: Step, error: FleetError) -> None:
        """Nothing could carry the call out, or its tool refused it."""
        started, blobs = step.started, self._bench.blobs
        is_refusal = isinstance(error, PolicyDenied)
        outcome = "denied" if is_refusal else "failed"
        finished = await self._stored(lambda: failed_step(blobs, started.step_id, error, outcome=outcome))
        if not is_refusal:
            await self._finish(step, finished)
            return
        work = Work(
            Seat(started.principal, started.as_role), started.tool or "exec", started.op or "run", started.task_id
        )
        rule_id = str(error.details.get("rule_id", "tool"))
        denied = denied_call(work, rule_id, started.policy.digest, error.message[:2000])
        await self._finish(step, finished, denied)

    async def _conclude(self, step: Step) -> None:
        """Somebody said that it did not happen: whoever asked for it may ask again."""
        error = ToolFailed(f"{step.started.step_id} did not happen, a person said", step_id=step.started.step_id)
        finished = await self._stored(lambda: failed_step(self._bench.blobs, step.started.step_id, error))
        await self._finish(step, finished)

    async def _declare_unknown(self, step: Step) -> None:
        """The story waits for a person who says whether the call happened (RC-52)."""
        started = step.started
        unknown = StepOutcomeUnknown(
            step_id=started.step_id, sent_digest=started.request_digest, sent_at=step.started_ms
        )
        payloads: tuple[Payload, ...] = (unknown,)
        if self._bench.state.disposition == "active" and not self._bench.state.closed:
            story_id = self._bench.state.story_id
            detail = (
                f"{started.tool}.{started.op} of {started.principal} was sent and its outcome is not known. It is "
                f"never repeated: find out whether it happened, then run `fleet story resolve {story_id} "
                f"{started.step_id} --outcome happened|not_happened --note ...`"
            )
            parked = StoryParked(cause="outcome_unknown", code=OutcomeUnknown.code, detail=detail, ref=started.step_id)
            payloads = (unknown, parked)
        await self._record(f"{started.step_id}/unknown/{step.attempt}", *payloads)

    async def _finish(self, step: Step, finished: StepFinished, *more: Payload) -> None:
        record = self._bench.state.steps[finished.step_id]
        if record.finished is None:
            await self._record(f"{finished.step_id}/finish", finished, *more)

    async def _record(self, phase: str, *payloads: Payload) -> None:
        await self._stored(lambda: self._bench.journal.record(phase, *payloads))

    async def _stored(self, store: Callable[[], Awaitable[T]]) -> T:
        """What the store answers, in the end: an outage is no result of a call, so it is waited out."""
        for attempt in count(1):
            self._bench.journal.admit()
            try:
                return await store()
            except (VersionConflict, StoreUnavailable, CommitUnknown):
                await self._bench.clock.sleep(min(_BACKOFF_S * attempt, 10.0))
        raise AssertionError("unreachable")


async def end_calls(bench: Workbench) -> None:
    """No call of the story is open: it is over, and each of them says so.

    An UNSAFE one that was perhaps sent stays unknown; the record says that.
    """
    for step in open_asked_steps(bench.state):
        started = step.started
        if started.effect == "UNSAFE":
            if step.unknown is None:
                unknown = StepOutcomeUnknown(
                    step_id=started.step_id, sent_digest=started.request_digest, sent_at=step.started_ms
                )
                await bench.journal.record(f"{started.step_id}/unknown/{step.attempt}", unknown)
            continue
        if started.kind == "run":
            spec = RunSpec.model_validate_json(await bench.blobs.get(started.request_digest))
            result, finished = cancelled_run(started.step_id, spec)
            await bench.blobs.put(result.data)
        else:
            outcome = ToolOutcome(outcome="cancelled", reason="story_over", text="the story is over")
            finished = await finished_call(bench.blobs, started.step_id, outcome, tree_in=None)
        await bench.journal.record(f"{started.step_id}/finish", finished)


def _tree_in(request: Mapping[str, Any]) -> Digest | None:
    """The tree that a stored request names; JSON gives a text, which blob stores do not take."""
    return Digest(request["tree"]) if request["tree"] else None
