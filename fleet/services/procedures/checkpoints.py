"""Checkpoints of a story tree: one with each merge, since nothing else moves that tree (PL-47, RC-36)."""

from __future__ import annotations

from fleet.events import CheckpointSaved, TreeMerged
from fleet.ids import EntityId
from fleet.services.workbench import Workbench

__all__ = ["checkpoint"]


def checkpoint(
    bench: Workbench, name: str, merged: TreeMerged, *, plan_id: EntityId, note: str, done: EntityId | None = None
) -> CheckpointSaved:
    """The tree as the merge leaves it and where every task stands; to be recorded together with the merge.

    Args:
        name: of the record; the same name gives the same id (GL-9).
        done: the task that the merge finishes.
    """
    states = {task_id: task.state for task_id, task in bench.state.tasks.items()}
    if done is not None:
        states[done] = "done"
    return CheckpointSaved(
        plan_id=plan_id,
        checkpoint_id=bench.new_id("rp", name),
        tree_digest=merged.result_digest,
        task_states=states,  # pyright: ignore[reportArgumentType]
        note=note[:200],
    )
