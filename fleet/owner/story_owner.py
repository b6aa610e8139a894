"""The owner of one story: carries out what it owes, one intent after the other, until nothing is owed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from fleet.events.story import Topic
from fleet.events.task import SlaBreached
from fleet.kernel.errors import (
    ApprovalRequired,
    FleetError,
    LogRegressed,
    OwnershipError,
    Retry,
    StoreError,
    StoreFull,
)
from fleet.kernel.ids import CommandId, Principal
from fleet.owner.duties import councils, delivery, derivation, gate_councils, gates, tasks
from fleet.owner.duties import deploy as deploying
from fleet.owner.duties import procedure as base
from fleet.owner.duties import restore as restoring
from fleet.owner.duties.checkpoints import save_after_work
from fleet.owner.reconcile import Reconciler
from fleet.owner.tools.tool_calls import ToolCalls, end_calls
from fleet.owner.workbench import Workbench
from fleet.story import intents as owed
from fleet.story.approvals import pending_consents, unanswered_gates
from fleet.story.intents import Intent
from fleet.story.plan import plan
from fleet.story.plan_tasks import held_reviews
from fleet.story.time_limits import TimeLimit, time_limits

_LOG = logging.getLogger(__name__)
_PAUSE_S = 60.0
"""How far two looks are apart at most: limits are hours, and what begins meanwhile ends later."""
_LEAST_S = 1.0


class SlaWatch:
    """Watches the tasks of one story beside the work on it. Each breach is on record once, whoever owns the story."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def run(self) -> None:
        """Returns when the story is somebody else's. An outage costs nothing but a later look."""
        while True:
            try:
                await self._look()
            except OwnershipError:
                return
            except FleetError:
                pass
            except Exception:
                # A defect of ours must not end the watch, nor the work beside it.
                _LOG.exception("story %s: its time limits cannot be told", self._bench.journal.story_id)
                await self._bench.clock.sleep(_PAUSE_S)
                continue
            await self._bench.clock.sleep(self._pause_s())

    async def _look(self) -> None:
        bench = self._bench
        for limit in self._running():
            if limit.due_ms > bench.now_ms:
                return
            breach = SlaBreached(
                subject=Topic(kind="task", id=limit.task_id),
                state=limit.state,
                limit_s=limit.limit_s,
                elapsed_s=(bench.now_ms - limit.since_ms) // 1000,
                notified=self._told(limit),
            )
            await bench.journal.record(limit.name, breach)

    def _running(self) -> tuple[TimeLimit, ...]:
        bench = self._bench
        if not bench.journal.exists:
            return ()
        limits = time_limits(bench.state, bench.rules.fsm.task_workflow)
        story_id = bench.journal.story_id
        return tuple(one for one in limits if not bench.journal.knows(CommandId(f"{story_id}/{one.name}")))

    def _pause_s(self) -> float:
        running = self._running()
        left_s = (running[0].due_ms - self._bench.now_ms) / 1000 if running else _PAUSE_S
        return min(_PAUSE_S, max(_LEAST_S, left_s))

    def _told(self, limit: TimeLimit) -> tuple[Principal, ...]:
        """Who can take the task on, and the product owners."""
        holders = self._bench.holders
        if holders is None:
            return ()
        project = self._bench.state.project_id
        return tuple(dict.fromkeys([*holders(limit.role, project), *holders("po", project)]))


Procedure = Callable[[Workbench, Any], Awaitable[None]]

_PROCEDURES: Mapping[type[Any], Procedure] = {
    owed.CheckoutBase: base.checkout_base,
    owed.MeasureTree: base.measure_tree,
    owed.RequestGate: gates.request_gate,
    owed.RequestEscalation: gates.request_escalation,
    owed.ExpireGate: gates.expire_gate,
    owed.DecideGate: gates.decide_delegated_gate,
    owed.FireTransition: gates.fire_transition,
    owed.LoopBack: gates.loop_back,
    owed.Park: gates.park_story,
    owed.OpenDesignCouncil: councils.open_design_council,
    owed.OpenGateCouncil: gate_councils.open_gate_council,
    owed.OpenTaskCouncil: councils.open_task_council,
    owed.ReopenTaskCouncil: councils.reopen_task_council,
    owed.AdvanceCouncil: councils.advance_council,
    owed.DerivePlan: derivation.derive_plan,
    owed.DeriveAgain: derivation.derive_again,
    owed.StartTask: tasks.start_task,
    owed.CommitWork: tasks.commit_work,
    owed.ReviewTask: tasks.review_task,
    owed.TestTask: tasks.test_task,
    owed.ReleaseReview: tasks.release_review,
    owed.EndCouncil: councils.end_council,
    owed.MergeTask: tasks.merge_task,
    owed.RestoreTree: restoring.restore_tree,
    owed.ProduceDocs: delivery.produce_docs,
    owed.GenerateReport: delivery.generate_report,
    owed.Publish: delivery.publish,
    owed.CloseStory: delivery.close_story,
    owed.Deploy: deploying.deploy,
    owed.ObserveHealth: deploying.observe_health,
    owed.RollBack: deploying.roll_back,
}

_TRIES = 3
_BACKOFF_S = 2.0
_LONGEST_PAUSE_S = 60


class StoryOwner:
    """Holds one story for as long as its lease lives. Commands and work share the journal, which orders them."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._wake = asyncio.Event()
        self._failures = 0
        self._doing = "planning"
        self._calls = ToolCalls(bench, changed=self.wake)
        self._reconciler = bench.usage and Reconciler(bench.journal, bench.usage, bench.clock)
        self._is_running = False

    def wake(self) -> None:
        """Something was recorded: look again at what is owed, and at the tool calls that were asked for."""
        self._wake.set()
        if self._is_running:
            self._calls.look()

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever be owed again."""
        return self.bench.journal.exists and self.bench.state.is_over

    async def run(self) -> None:
        """Returns when the story is over. What goes wrong in a story parks that story (LC-94).

        Raises OwnershipError when somebody else owns it or the tenure is over, LogRegressed when the log lost events,
        and the StoreError of an outage of the log: then nothing more is to be written, and a next owner goes on.
        Tool calls that were asked for are carried out beside all that, and end with this; so do the looks at what
        engines say of calls that an earlier owner lost, and at how long tasks take.
        """
        self._is_running = True
        beside = [asyncio.create_task(SlaWatch(self.bench).run())]
        if self._reconciler:
            beside.append(asyncio.create_task(self._reconciler.run()))
        try:
            self._calls.look()
            await self._work()
            if self.is_over:
                await end_calls(self.bench)
        finally:
            self._is_running = False
            await self._calls.close()
            for look in beside:
                look.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _work(self) -> None:
        while not self.is_over:
            self._wake.clear()
            before = self._version
            try:
                if not await self._may_start():
                    continue
                is_idle = await self._advance()
            except (OwnershipError, LogRegressed):
                raise
            except Exception as error:
                # The task boundary of a story: a defect of ours is met again a few times, and then parks this story.
                self._failures = 1 if self._version > before else self._failures + 1
                await self._settle(error)
                continue
            self._failures = 0
            if is_idle:
                await self._idle()

    async def _may_start(self) -> bool:
        """True while nothing holds the fleet back; otherwise False, once that has changed or something was recorded."""
        platform, journal = self.bench.journal.platform, self.bench.journal
        if platform is None or not journal.exists or await platform.pause_of(self.bench.state.project_id) is None:
            return True
        await self._first_of(self._wake.wait(), platform.until_running(self.bench.state.project_id))
        return False

    async def _idle(self) -> None:
        """Returns once something was recorded, or what the story waits for has expired (LC-73, LC-130)."""
        now_ms, ends = self.bench.now_ms, self._ends()
        if not ends:
            await self._wake.wait()
            return
        await self._first_of(self._wake.wait(), self.bench.clock.sleep((min(ends) - now_ms) / 1000))

    async def _first_of(self, *works: Coroutine[Any, Any, Any]) -> None:
        """Returns once one of them has ended; what went wrong in it is raised, and the others are no more."""
        waits = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _ends(self) -> list[int]:
        """When the requests end that the story waits for; those at gates only while the story may ask again."""
        if not self.bench.journal.exists:
            return []
        state = self.bench.state
        ends = [request.expires_at for request in pending_consents(state, now_ms=self.bench.now_ms)]
        if state.start is not None and state.disposition == "active" and not state.is_paused:
            ends += [approval.request.expires_at for approval in unanswered_gates(state)[:1]]
            ends += [task.claim.expires_at_ms for task in held_reviews(state) if task.claim is not None]
        return ends

    @property
    def _version(self) -> int:
        return self.bench.state.version if self.bench.journal.exists else 0

    async def _advance(self) -> bool:
        """Carry out the first intent; True when there is none."""
        self._doing = "planning"
        intents = self._owed()
        if not intents:
            return True
        if self._reconciler and isinstance(intents[0], owed.CloseStory):
            # Before the last report, which then has what engines know; a closed story takes no more of it.
            await self._reconciler.last()
        await save_after_work(self.bench)
        before, self._doing = self._version, intents[0].name
        await _PROCEDURES[type(intents[0])](self.bench, intents[0])
        if self._version == before:
            await gates.record_park(self.bench, cause="stuck", detail=f"{self._doing} changed nothing")
        return False

    def _owed(self) -> tuple[Intent, ...]:
        if not self.bench.journal.exists:
            return ()
        return plan(self.bench.state, self.bench.rules.fsm, now_ms=self.bench.now_ms)

    async def _settle(self, error: Exception) -> None:
        """Try again, later if need be, or park. An outage of the log is not the story's fault and is raised.

        Blobs without room park the story, for only people make some; where it is the log that has none, the park cannot
        be recorded either, and that is raised.
        """
        if isinstance(error, StoreError) and error.retry is Retry.LATER and not isinstance(error, StoreFull):
            raise error
        if isinstance(error, ApprovalRequired) and not self._owed():
            return  # the request is on record, and the story waits for its answer (RT-34)
        if isinstance(error, FleetError) and error.details.get("queued"):
            # The engines had no room: nothing failed, and the step comes again as often as it takes (MB-28).
            self._failures = 0
            await self.bench.clock.sleep(max(1.0, _wanted_pause_s(error)))
            return
        # A session that has waited for its engine itself is not made to wait again.
        is_final = isinstance(error, FleetError) and (error.retry is Retry.NEVER or bool(error.details.get("waited")))
        if not is_final and self._failures < _TRIES:
            # What was decided on an older state is only to be decided again; the rest needs time.
            if not (isinstance(error, FleetError) and error.retry is Retry.RELOAD):
                await self.bench.clock.sleep(max(_BACKOFF_S * self._failures, _wanted_pause_s(error)))
            return
        self._failures = 0
        if isinstance(error, FleetError):
            ref = error.details.get("step_id")
            await gates.record_park(
                self.bench, cause=_cause(error), detail=error.message, code=error.code, ref=str(ref) if ref else None
            )
        else:
            detail = f"{self._doing} failed {_TRIES} times with {type(error).__name__}: {error}"
            await gates.record_park(self.bench, cause="internal_error", detail=detail)


def _wanted_pause_s(error: Exception) -> float:
    """When to come again, as far as the error says it; bounded, since it may come from elsewhere."""
    retry_after_s = error.details.get("retry_after_s") if isinstance(error, FleetError) else None
    return max(0.0, min(float(retry_after_s), _LONGEST_PAUSE_S)) if isinstance(retry_after_s, int | float) else 0.0


def _cause(error: FleetError) -> str:
    causes = {
        "outcome_unknown": "outcome_unknown",
        "nondeterministic_plan": "nondeterministic_plan",
        "unsupported_schema": "unsupported_schema",
        "log_regressed": "log_regressed",
        "budget_exceeded": "budget_exhausted",
    }
    return causes.get(error.code, "stuck")
