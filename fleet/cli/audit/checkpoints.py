"""The checkpoints of a story from the command line: look at them, and go back to one (PL-47)."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any

from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.story.stories import with_desk
from fleet.desk.planning import PlanningDesk
from fleet.kernel.ids import StoryId
from fleet.story.commands.interventions import RestoreStory
from fleet.wiring.endpoints import Endpoints


def list_checkpoints(output: Output, story_id: str) -> int:
    """The trees that the story can be set back to are printed, the oldest first."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        state = await desk.state(StoryId(story_id))
        checkpoints = tuple(state.checkpoints.values())
        for each in checkpoints:
            done = sum(task == "done" for task in each.task_states.values())
            here = "  (the tree now)" if each.tree == state.tree else ""
            tasks = f"{done} of {len(each.task_states)} tasks done"
            output.say(f"{each.checkpoint_id}  version {each.version:<5} {tasks}  {shown(each.note)}{here}")
        if not checkpoints:
            output.say("there is no checkpoint yet; the first one is saved with the first merge of a task")
        restoring = state.restoration.checkpoint_id if state.restoration else None
        if restoring is not None:
            output.say(f"{restoring} is being restored")
        rows: list[dict[str, Any]] = [asdict(c) | {"is_present": c.tree == state.tree} for c in checkpoints]
        output.result({"story_id": story_id, "checkpoints": rows, "restoring": restoring})
        return DONE

    return with_desk(work)


def restore(output: Output, story_id: str, *, to: str, reason: str) -> int:
    """The story tree goes back to the checkpoint as soon as the step under way has ended."""

    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        key = f"{story_id}/restore/{secrets.token_hex(8)}"
        sent = RestoreStory(checkpoint=to, reason=reason)
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        state = await desk.state(StoryId(story_id))
        output.say(f"story {story_id} goes back to checkpoint {to}; what came after it stays on record")
        if state.disposition == "parked":
            output.say(f"it is parked: `fleet resume {story_id}` lets it go on, with the restoration first")
        elif state.is_paused:
            output.say(f"it is paused: `fleet story unpause {story_id}` lets it go on, with the restoration first")
        output.result(result)
        return DONE

    return with_desk(work)
