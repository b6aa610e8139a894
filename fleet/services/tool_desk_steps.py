"""What every desk of tools works with, and how it waits for a step that its caller asked for."""

from __future__ import annotations

from collections.abc import Callable

from fleet.errors import NotFound
from fleet.ids import CommandId, EntityId, Principal, StepId, StoryId
from fleet.ports import BlobStore, Clock, Sandbox, ToolSessions
from fleet.services.planning_desk import PlanningDesk
from fleet.services.tool_records import entity_of, unknown_step
from fleet.story import FsmConfig, Step
from fleet.tools import Policy

__all__ = ["LOOK_S", "DeskSteps"]

LOOK_S = 0.2
"""Until the log is looked at again while a result is waited for; longer after each look."""
_LONGEST_LOOK_S = 1.0


class DeskSteps:
    """Steps within stories, each for whoever asked for it.

    Args:
        planning: how commands reach the owner of a story, and how a story is read.
        roles_of: the roles that a principal holds by the registry.
    """

    def __init__(
        self,
        *,
        planning: PlanningDesk,
        sessions: ToolSessions,
        blobs: BlobStore,
        sandbox: Sandbox,
        clock: Clock,
        policy: Policy,
        fsm: FsmConfig,
        roles_of: Callable[[Principal], frozenset[str]],
    ) -> None:
        self._planning, self._sessions, self._blobs, self._sandbox = planning, sessions, blobs, sandbox
        self._clock, self._policy, self._fsm, self._roles_of = clock, policy, fsm, roles_of

    async def story_of(
        self, entity_id: EntityId, *, principal: Principal | None, story_id: StoryId | None = None
    ) -> StoryId:
        """The story that a session or run belongs to; `story_id` when the caller named it.

        Args:
            principal: whose it has to be; None for anybody's.

        Raises NotFound when it is somebody else's, or when nobody knows any more: then the story has to be named.
        """
        if story_id is not None:
            return story_id
        origin = await self._sessions.origin_of(entity_id)
        if origin is None or principal not in (None, origin.principal):
            raise NotFound(f"nothing is known of {entity_id}; if it is an old one, add storyId", id=entity_id)
        return origin.story_id

    async def own_step(
        self, story_id: StoryId, step_id: StepId, principal: Principal, *, sent: CommandId, wait_s: float
    ) -> Step | None:
        """The principal's step once it is settled or the time is over; None while its command waits for the owner.

        Raises what the owner said when it refused, NotFound when nobody asked for the step.
        """
        until_ms, look_s = self._clock.monotonic_ms() + round(wait_s * 1000), LOOK_S
        while True:
            step = (await self._planning.state(story_id)).steps.get(step_id)
            if step is None and not await self._is_queued(story_id, step_id, principal, sent):
                step = (await self._planning.state(story_id)).steps.get(step_id)
                if step is None:
                    raise unknown_step(story_id, step_id)
            # Whether somebody else's call exists is none of the caller's business.
            if step is not None and step.started.principal != principal:
                raise unknown_step(story_id, step_id)
            is_settled = step is not None and (step.finished is not None or step.is_unresolved)
            left_s = (until_ms - self._clock.monotonic_ms()) / 1000
            if is_settled or left_s <= 0:
                return step
            await self._clock.sleep(min(look_s, left_s))
            look_s = min(look_s * 1.5, _LONGEST_LOOK_S)

    async def _is_queued(self, story_id: StoryId, step_id: StepId, principal: Principal, sent: CommandId) -> bool:
        origin = await self._sessions.origin_of(entity_of(step_id))
        if origin is None or (origin.story_id, origin.principal) != (story_id, principal):
            return False
        return await self._planning.answer(sent) is None
