"""What the steps of calls and runs that somebody asked for have in common: their form, their number, their start."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from fleet.kernel.errors import AlreadyClaimed, IdempotencyMismatch, InvalidInput
from fleet.kernel.ids import EntityId, StepId
from fleet.kernel.types import Frozen
from fleet.log.port import Command
from fleet.story.state import StoryState
from fleet.story.tool_steps import open_asked_steps

MAX_OPEN = 32
"""Calls and runs of one story at one time."""
_M = TypeVar("_M", bound=BaseModel)


class Asked(Frozen):
    """What every request says: in which role, and for which task."""

    as_role: Annotated[str, Field(max_length=60)]
    task_id: EntityId | None = None


def parsed(model: type[_M], command: Command) -> _M:
    """The body of the command; InvalidInput names every field that is wrong."""
    try:
        return model.model_validate(command.body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [{"pointer": "/" + "/".join(map(str, e["loc"])), "message": e["msg"]} for e in found]
        listed = "; ".join(f"{p['pointer']}: {p['message']}" for p in problems)
        raise InvalidInput(
            f"{command.name} is wrong: {listed}; correct it and call again", problems=problems
        ) from error


def require_room(state: StoryState, step_id: StepId) -> None:
    """Return when the step is new and one more may be under way; IdempotencyMismatch or AlreadyClaimed otherwise."""
    if step_id in state.steps:
        raise IdempotencyMismatch(f"step {step_id} was asked for before: use a new key for another call")
    if len(open_asked_steps(state)) >= MAX_OPEN:
        raise AlreadyClaimed(f"{MAX_OPEN} calls and runs of story {state.story_id} are under way: wait for one of them")
