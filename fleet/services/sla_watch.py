"""Says when a task takes longer than the workflow allows; it decides nothing (LC-131)."""

from __future__ import annotations

import logging

from fleet.errors import FleetError, OwnershipError
from fleet.events import SlaBreached, Topic
from fleet.ids import CommandId, Principal
from fleet.services.workbench import Workbench
from fleet.story import TimeLimit, time_limits

__all__ = ["SlaWatch"]

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
        found = time_limits(bench.state, bench.rules.fsm.task_workflow)
        story_id = bench.journal.story_id
        return tuple(one for one in found if not bench.journal.knows(CommandId(f"{story_id}/{one.name}")))

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
