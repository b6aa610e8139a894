"""Checkpoints of a story tree: with each merge, before each deployment, and after a time of work (PL-47, RC-36)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from fleet.events.plan import CheckpointSaved
from fleet.events.task import TreeMerged
from fleet.kernel.ids import EntityId
from fleet.owner.workbench import Workbench

if TYPE_CHECKING:
    from fleet.events.values import TaskState


def checkpoint(
    bench: Workbench,
    name: str,
    merged: TreeMerged,
    *,
    plan_id: EntityId,
    note: str,
    done: EntityId | None = None,
    states: Mapping[str, str] | None = None,
) -> CheckpointSaved:
    """The tree as the merge leaves it and where every task stands; to be recorded together with the merge.

    Args:
        name: of the record; the same name gives the same id (GL-9).
        done: the task that the merge finishes.
        states: where every task stands after a merge that changes more than one; None is where they stand now.
    """
    after = dict(states) if states is not None else {k: task.state for k, task in bench.state.tasks.items()}
    if done is not None:
        after[done] = "done"
    return CheckpointSaved(
        plan_id=plan_id,
        checkpoint_id=bench.new_id("rp", name),
        tree_digest=merged.result_digest,
        task_states=after,  # pyright: ignore[reportArgumentType]
        note=note[:200],
    )


async def save_checkpoint(bench: Workbench, name: str, *, note: str) -> None:
    """The tree as it is now can be restored to; nothing where no plan is adopted."""
    state = bench.state
    if state.plan_id is None or state.tree is None:
        return
    states = cast("dict[EntityId, TaskState]", {key: task.state for key, task in state.tasks.items()})
    saved = CheckpointSaved(
        plan_id=EntityId(state.plan_id),
        checkpoint_id=bench.new_id("rp", name),
        tree_digest=state.tree,
        task_states=states,
        note=note[:200],
    )
    await bench.journal.record(name, saved)


async def save_after_work(bench: Workbench) -> None:
    """A checkpoint is saved where tasks moved on, and the last one is as old as config/planning.yaml allows."""
    state, every_s = bench.state, bench.rules.planning.execution.checkpoint_every_s
    saved = list(state.checkpoints.values())
    began = [ms for task in state.tasks.values() for ms in task.entered_ms.values()]
    if state.tree is None or not began:
        return
    last_ms = saved[-1].ts_ms if saved else min(began)
    is_new = max(began) > last_ms
    if is_new and bench.now_ms - last_ms >= every_s * 1000:
        await save_checkpoint(bench, f"checkpoint/{state.version}", note=f"after {every_s} s of work")
