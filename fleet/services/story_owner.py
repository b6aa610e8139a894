"""The owner of one story: carries out what it owes, one intent after the other, until nothing is owed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fleet.errors import FleetError, OwnershipError, Retry, StoreError
from fleet.services.procedures import base, councils, delivery, derivation, gates, tasks
from fleet.services.workbench import Workbench
from fleet.story import Intent, plan
from fleet.story import intents as owed

__all__ = ["StoryOwner"]

Procedure = Callable[[Workbench, Any], Awaitable[None]]

_PROCEDURES: Mapping[type[Any], Procedure] = {
    owed.CheckoutBase: base.checkout_base,
    owed.MeasureTree: base.measure_tree,
    owed.RequestGate: gates.request_gate,
    owed.DecideGate: gates.decide_delegated_gate,
    owed.FireTransition: gates.fire_transition,
    owed.LoopBack: gates.loop_back,
    owed.Park: gates.park_story,
    owed.OpenDesignCouncil: councils.open_design_council,
    owed.OpenTaskCouncil: councils.open_task_council,
    owed.AdvanceCouncil: councils.advance_council,
    owed.DerivePlan: derivation.derive_plan,
    owed.StartTask: tasks.start_task,
    owed.CommitWork: tasks.commit_work,
    owed.ReviewTask: tasks.review_task,
    owed.TestTask: tasks.test_task,
    owed.MergeTask: tasks.merge_task,
    owed.ProduceDocs: delivery.produce_docs,
    owed.GenerateReport: delivery.generate_report,
    owed.Publish: delivery.publish,
    owed.CloseStory: delivery.close_story,
}

_TRIES = 3
_BACKOFF_S = 2.0


class StoryOwner:
    """Holds one story for as long as its lease lives. Commands and work share the journal, which orders them."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._wake = asyncio.Event()
        self._last: Intent | None = None

    def wake(self) -> None:
        """Something was recorded: look again at what is owed."""
        self._wake.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever be owed again."""
        return self.bench.journal.exists and self.bench.state.closed

    async def run(self) -> None:
        """Returns when the story is closed. Raises OwnershipError when somebody else owns it."""
        while not self.is_over:
            self._wake.clear()
            intents = self._owed()
            if intents:
                await self._perform(intents[0])
            else:
                await self._wake.wait()

    def _owed(self) -> tuple[Intent, ...]:
        if not self.bench.journal.exists:
            return ()
        return plan(self.bench.state, self.bench.rules.fsm, now_ms=self.bench.now_ms)

    async def _perform(self, intent: Intent) -> None:
        before = self.bench.state.version
        for attempt in range(1, _TRIES + 1):
            try:
                await _PROCEDURES[type(intent)](self.bench, intent)
            except OwnershipError:
                raise
            except FleetError as error:
                # An outage of the log is not the story's fault: the lease ends, and the next owner continues.
                if isinstance(error, StoreError) and error.retry is Retry.LATER:
                    raise
                if error.retry is Retry.LATER and attempt < _TRIES:
                    await self.bench.clock.sleep(_BACKOFF_S * attempt)
                    continue
                await gates.record_park(self.bench, cause=_cause(error), detail=error.message, code=error.code)
            except Exception as error:
                # The task boundary of an actor: a defect of ours parks this one story and names itself.
                detail = f"{type(intent).__name__} failed with {type(error).__name__}: {error}"
                await gates.record_park(self.bench, cause="internal_error", detail=detail)
            break
        if self.bench.state.version == before:
            detail = f"{type(intent).__name__} changed nothing"
            await gates.record_park(self.bench, cause="stuck", detail=detail)


def _cause(error: FleetError) -> str:
    known = {
        "outcome_unknown": "outcome_unknown",
        "nondeterministic_plan": "nondeterministic_plan",
        "unsupported_schema": "unsupported_schema",
        "log_regressed": "log_regressed",
        "budget_exceeded": "budget_exhausted",
    }
    return known.get(error.code, "stuck")
