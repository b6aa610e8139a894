"""A person ends what a story deployed: the story has it on record, and one that watches it waits (LC-49)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.errors import InvalidTransition, NotFound
from fleet.events import DeploymentRecorded, Payload, StoryParked
from fleet.ids import EntityId, Principal, RunKey, StepId
from fleet.ports import Command
from fleet.services.task_commands import needs_one_of
from fleet.services.tool_steps import parsed
from fleet.services.workbench import Workbench
from fleet.story import Caller, Deployment, FsmConfig, StoryState, check_notes

__all__ = ["Action", "deployment_of", "end_deployment", "ended_words", "lost_words"]

Action = Literal["stop", "rollback"]


class _Ending(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: Annotated[str, Field(max_length=40)]
    revision: Annotated[str, Field(max_length=64)]
    action: Action
    reason: str


def ended_words(who: Principal, action: Action, reason: str) -> str:
    """Who did what by hand, and why."""
    did = "stopped it" if action == "stop" else "rolled it back"
    return f"{who} {did} by hand: {reason.strip()}"


def lost_words(state: StoryState, environment: str, told: str) -> str:
    """Why a story that watches an environment waits, and what to do."""
    return (
        f"{environment} does not run what this story deployed any more: {told}. Let the story go on with `fleet resume "
        f"{state.story_id}`, and it goes back to build with a task for this; or give it up with `fleet story cancel "
        f"{state.story_id}`"
    )


def deployment_of(state: StoryState, revision: str) -> Deployment | None:
    """The deployment that an environment knows by this key."""
    return next((one for one in state.deployments.values() if one.revision == revision), None)


async def end_deployment(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """What a person ended is on record, and by whom (`end_deployment`, LC-49): also of a story that is over.

    The environment was changed before: whoever sends this saw that what is meant runs there no more.

    Raises:
        PolicyDenied: the caller holds neither role devops nor admin.
        NotFound: the story has no such deployment.
        InvalidTransition: it was rolled back or ended before.
        InvalidInput: the reason has not 10 to 4,000 characters.
    """
    needs_one_of(caller, "devops", "admin")
    asked = parsed(_Ending, command)
    state, told = bench.state, ended_words(caller.principal, asked.action, check_notes(asked.reason, "reason"))
    found = deployment_of(state, asked.revision)
    if found is None or found.environment != asked.environment:
        raise NotFound(f"story {state.story_id} deployed nothing of this revision to {asked.environment}")
    if found.status == "rolled_back":
        raise InvalidTransition(
            f"deployment {found.deployment_id} was ended before: {found.detail}",
            state=state.state,
            event=command.name,
            allowed=[],
        )
    recorded = DeploymentRecorded(
        deployment_id=EntityId(found.deployment_id),
        environment=found.environment,
        tree_digest=found.tree,
        revision=RunKey(found.revision),
        status="rolled_back",
        step_id=StepId(f"deployments/{list(state.deployments).index(found.deployment_id) + 1}"),
        rollback_ref=found.rollback_ref,
        detail=told[:2000],
    )
    if not _is_watched(state, bench.rules.fsm, found):
        return (recorded,)
    return (recorded, StoryParked(cause="operator", detail=lost_words(state, found.environment, told)[:4000]))


def _is_watched(state: StoryState, fsm: FsmConfig, deployment: Deployment) -> bool:
    """Whether the story waits for this deployment to have been healthy for long enough."""
    if state.closed or state.disposition != "active" or state.deployment != deployment:
        return False
    return any("health_ok" in row.guards for row in fsm.lifecycles[state.lifecycle].legal(state.state))
