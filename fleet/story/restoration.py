"""What setting a story tree back to a checkpoint records: a new merge, and never a deletion of history (PL-47)."""

from __future__ import annotations

from fleet.events.council import CouncilCancelled
from fleet.events.payload import Payload
from fleet.events.story import StoryTransitioned
from fleet.events.task import TaskTransitioned
from fleet.kernel.errors import NotFound
from fleet.kernel.ids import EntityId
from fleet.story.checkpoints import Restoration, TreeCheckpoint
from fleet.story.guards import GuardContext, evaluate
from fleet.story.lifecycle import FsmConfig, Transition
from fleet.story.state import StoryState, TaskState


def find_checkpoint(state: StoryState, name: str) -> TreeCheckpoint:
    """The checkpoint with this id, or that was saved as this version; NotFound names those that there are."""
    wanted = name.strip()
    for checkpoint in state.checkpoints.values():
        if wanted in (checkpoint.checkpoint_id, str(checkpoint.version)):
            return checkpoint
    known = ", ".join(f"{c.checkpoint_id} (version {c.version})" for c in state.checkpoints.values())
    raise NotFound(
        f"story {state.story_id} has no checkpoint {wanted[:80]!r}; it has: {known or 'none before its first merge'}",
        allowed=list(state.checkpoints),
    )


def restored_states(state: StoryState, checkpoint: TreeCheckpoint) -> dict[str, str]:
    """Where every task stands once the tree is that of the checkpoint: what it lacks is open, what it holds is done.

    Work that was under way then or is now began from another tree, so it begins anew. What a person discarded stays so.
    """
    return {
        task_id: "cancelled"
        if task.state == "cancelled"
        else "done"
        if checkpoint.task_states.get(task_id) == "done"
        else "todo"
        for task_id, task in state.tasks.items()
    }


def follow_restoration(
    state: StoryState, config: FsmConfig, wanted: Restoration, checkpoint: TreeCheckpoint, *, now_ms: int
) -> tuple[Payload, ...]:
    """What comes with the merge: councils on work that begins anew end, tasks change, the story is in its build."""
    after = restored_states(state, checkpoint)
    changed = [task for task_id, task in state.tasks.items() if task.state != after[task_id]]
    ids = {task.task.task_id for task in changed}
    ended = [
        CouncilCancelled(council_id=EntityId(council_id), reason=f"checkpoint {checkpoint.checkpoint_id} was restored")
        for council_id, council in state.councils.items()
        # Advice was asked for on the tree that there was: what its members were shown is gone.
        if council.status == "IN_PROGRESS" and (council.is_advice or council.opened.task_id in ids)
    ]
    moved = [_moved(task, after[task.task.task_id], wanted) for task in changed]
    row = _way_back(state, config)
    return (*ended, *moved, *((_back(state, config, row, wanted, now_ms),) if row else ()))


def _moved(task: TaskState, to: str, wanted: Restoration) -> TaskTransitioned:
    return TaskTransitioned(
        task_id=task.task.task_id,
        from_=task.state,  # pyright: ignore[reportArgumentType]
        action="RESTORE",
        to=to,  # pyright: ignore[reportArgumentType]
        actor_type="human",
        principal=wanted.by,
        as_role="po",
        feedback=wanted.reason if to == "todo" else None,
        evidence=(wanted.checkpoint_id,),
    )


def _way_back(state: StoryState, config: FsmConfig) -> Transition | None:
    """The row that leads from a state after the build back to it; None in the build and before it."""
    lifecycle = config.lifecycles[state.lifecycle]
    builds = {row.from_ for row in lifecycle.transitions if "all_tasks_done" in row.guards}
    if state.state in builds:
        return None
    return next((row for row in lifecycle.legal(state.state) if row.kind == "loopback" and row.to in builds), None)


def _back(state: StoryState, config: FsmConfig, row: Transition, wanted: Restoration, now_ms: int) -> StoryTransitioned:
    context = GuardContext(config=config, now_ms=now_ms, transition=row, reason=wanted.reason)
    return StoryTransitioned(
        from_=state.state,
        event=row.event,
        to=row.to,
        guards=evaluate(state, context),
        loopback=True,
        reason=wanted.reason,
    )
