"""Checkpoints of a story tree: one with each merge, since nothing else moves that tree (PL-47, RC-36)."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.events.plan import CheckpointSaved
from fleet.events.task import TreeMerged
from fleet.kernel.ids import EntityId
from fleet.owner.workbench import Workbench


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
