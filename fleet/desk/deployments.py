"""What people ask of the environments: what runs there, and that it ends (LC-49).

The environment is changed first and the story told then. Whoever died in between left who did it with the environment,
so the same request again, under the same key, is carried through and changes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet.deploy.port import Deployments, EndedRevision, Occupancy
from fleet.desk.planning import Pending, PlanningDesk
from fleet.kernel.errors import (
    ConfigError,
    FleetError,
    InvalidTransition,
    NotFound,
    OwnershipError,
    StoreError,
    StoryNotFound,
)
from fleet.kernel.ids import CommandId, Principal, RunKey, StoryId
from fleet.policy.deploy import DeployTarget
from fleet.redaction.redact import redact
from fleet.story.commands.interventions import Action, EndDeployment, deployment_of, ended_words
from fleet.story.deployments import Deployment
from fleet.story.state import StoryState


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment, and what the story has on record of what runs there."""

    target: DeployTarget
    occupancy: Occupancy
    story: StoryState | None = None
    """Whose program runs there; None while none does, and when its story is not in the log any more."""
    deployment: Deployment | None = None
    """None until it is on record."""


class DeploymentDesk:
    """Reads and commands.

    Args:
        targets: the declared ones; others are not there.
    """

    def __init__(
        self, *, planning: PlanningDesk, deployments: Deployments, targets: Sequence[DeployTarget] = ()
    ) -> None:
        self._planning, self._deployments, self._targets = planning, deployments, tuple(targets)

    async def environments(self) -> list[Environment]:
        """Every declared environment, in the order of the declaration. SandboxUnavailable where nobody can say."""
        # Side by side: one that hangs is looked at for seconds.
        return list(await asyncio.gather(*(self._environment(target) for target in self._targets)))

    async def environment(self, name: str) -> Environment:
        """One of them; NotFound when none of this name is declared."""
        return await self._environment(self._target(name))

    async def project_of(self, name: str, revision: str) -> str:
        """The project of the story that deployed this; NotFound when no story has."""
        self._target(name)
        project = await self._planning.project_of(await self._story_of(name, revision))
        if project is None:
            raise _unknown(name, revision)
        return project

    async def end(
        self, name: str, action: Action, *, revision: str, reason: str, principal: Principal, key: str, trace_id: str
    ) -> dict[str, Any] | Pending:
        """What runs there under this revision has ended, and its story has that on record.

        Raises:
            NotFound: no such environment is declared, or no story deployed this.
            InvalidTransition: something else runs there, nothing ran before, or what ran before does not start.
        """
        self._target(name)
        story_id, told = await self._story_of(name, revision), ended_words(principal, action, redact(reason).text)
        state = await self._planning.state(story_id)
        if deployment_of(state, revision) is None:
            raise _not_now(action, f"{name} is just being deployed by {story_id}: come again once that is on record")
        if not await self._is_answered(CommandId(f"{principal}/{key}")):
            await self._change(name, action, RunKey(revision), told)
        sent = EndDeployment(environment=name, revision=revision, action=action, reason=reason)
        return await self._planning.command(story_id, sent, principal=principal, key=key, trace_id=trace_id)

    async def _change(self, name: str, action: Action, revision: RunKey, told: str) -> None:
        before = await self._deployments.occupancy(name)
        if before.running is not None and before.running.key == revision:
            if action == "stop":
                await self._deployments.stop(name, only=revision, told=told)
            elif before.previous is None:
                raise _not_now(action, f"nothing ran in {name} before: stop what runs there instead")
            else:
                await self._roll_back(name, revision, told)
        occupancy = await self._deployments.occupancy(name)
        if occupancy.ended != EndedRevision(revision, told):
            runs = (
                f"runs {occupancy.running.key}, of {occupancy.running.story}" if occupancy.running else "runs nothing"
            )
            raise _not_now(action, f"{name} {runs}, and not what was named")

    async def _roll_back(self, name: str, revision: RunKey, told: str) -> None:
        try:
            standing = await self._deployments.roll_back(name, failed=revision, told=told)
        except ConfigError as error:
            # Its target of that time names a port that somebody else has by now: no fault of this front.
            raise _not_now("rollback", f"what ran in {name} before cannot start: {error.message}") from error
        if standing.status == "failed":
            raise _not_now("rollback", f"what ran in {name} before does not start: {standing.detail}")

    async def _environment(self, target: DeployTarget) -> Environment:
        occupancy = await self._deployments.occupancy(target.environment)
        if occupancy.running is None:
            return Environment(target, occupancy)
        try:
            state = await self._planning.state(occupancy.running.story)
        except StoryNotFound:
            return Environment(target, occupancy)
        return Environment(target, occupancy, state, deployment_of(state, occupancy.running.key))

    async def _story_of(self, name: str, revision: str) -> StoryId:
        running = (await self._deployments.occupancy(name)).running
        if running is not None and running.key == revision:
            return running.story
        for state in await self._planning.states():
            deployment = deployment_of(state, revision)
            if deployment is not None and deployment.environment == name:
                return StoryId(state.story_id)
        raise _unknown(name, revision)

    def _target(self, name: str) -> DeployTarget:
        target = next((target for target in self._targets if target.environment == name), None)
        if target is None:
            raise NotFound(f"there is no environment {name[:40]!r}", environment=name[:40])
        return target

    async def _is_answered(self, command_id: CommandId) -> bool:
        """Whether the key has its answer: then that is given again, and nothing is changed (AP-2)."""
        try:
            return await self._planning.answer(command_id) is not None
        except (StoreError, OwnershipError):
            raise
        except FleetError:
            return True


def _unknown(name: str, revision: str) -> NotFound:
    return NotFound(f"no story deployed {revision[:64]!r} to {name}", revision=revision[:64])


def _not_now(event: str, why: str) -> InvalidTransition:
    return InvalidTransition(why, state="DEPLOYED", event=event, allowed=[])
