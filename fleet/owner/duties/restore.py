"""Procedure that sets the story tree back to a checkpoint, on top of everything that was merged since (PL-47)."""

from __future__ import annotations

from fleet.kernel.ids import EntityId
from fleet.owner.duties.checkpoints import checkpoint
from fleet.owner.duties.tasks import commit_tree
from fleet.owner.workbench import Workbench, seat
from fleet.story.intents import RestoreTree
from fleet.story.restoration import follow_restoration, restored_states

DEVOPS = seat("devops")


async def restore_tree(bench: Workbench, intent: RestoreTree) -> None:
    """The story tree is that of the checkpoint, with a commit of its own on the last one. Tasks and state fit it.

    The commit is a KEYED step below the request's number, so it is made once, whatever dies meanwhile; the merge and
    all that follows from it are one append.
    """
    restoration = bench.state.restoration
    assert restoration is not None
    kept = bench.state.checkpoints[intent.checkpoint_id]
    name = f"restore/{intent.number}"
    title = f"Restore the tree of checkpoint {kept.checkpoint_id}"
    message = f"{title}\n\n{restoration.reason[:500]}\n\nStory: {bench.state.story_id}"
    merged = await commit_tree(bench, kept.tree, prefix=name, message=message, who=DEVOPS, task_id=None)
    merged = merged.model_copy(update={"restored_from": EntityId(kept.checkpoint_id)})
    state = bench.state
    assert state.plan_id is not None, "checkpoints are saved under a plan"
    saved = checkpoint(
        bench,
        f"{name}/merged",
        merged,
        plan_id=EntityId(state.plan_id),
        note=f"restored from {kept.checkpoint_id}",
        states=restored_states(state, kept),
    )
    followed = follow_restoration(state, bench.rules.fsm, restoration, kept, now_ms=bench.now_ms)
    await bench.journal.record(f"{name}/merged", merged, *followed, saved)
