"""Port: the environments of a fleet, where accepted trees run (LC-49)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from fleet.ids import Digest, RunKey, StoryId
from fleet.tools import DeployTarget, HealthCheckSpec, Sample

__all__ = ["Deployments", "Placed", "Standing"]


@dataclass(frozen=True, slots=True)
class Placed:
    """What is to run in an environment. The target is that of the time at which it was deployed."""

    key: RunKey
    story: StoryId
    tree: Digest
    toolchain: str
    target: DeployTarget


@dataclass(frozen=True, slots=True)
class Standing:
    """How a deployment stands."""

    status: Literal["running", "failed", "nothing"]
    """`failed`: it did not become ready, and what ran before still runs. `nothing`: the environment is empty."""
    key: RunKey | None = None
    """Of what runs now."""
    previous: RunKey | None = None
    """Of what a rollback goes back to."""
    detail: str = ""
    """For people; partly written by the program that was deployed."""


class Deployments(Protocol):
    """Every method raises SandboxUnavailable where nothing could hold the program, StoreUnavailable in an outage."""

    async def deploy(self, placed: Placed) -> Standing:
        """It runs in the environment, in place of what ran before; `failed` once it is sure that it does not.

        Returns when it is ready, at the latest after `target.ready.within_s`. What ran before ends only then; until
        then, and after a failure, people reach it by the port that its own target exposes. A key that runs already
        changes nothing.
        """
        ...

    async def standing(self, environment: str) -> Standing:
        """What runs there now. Changes nothing."""
        ...

    async def roll_back(self, environment: str, *, failed: RunKey) -> Standing:
        """What ran before `failed` runs again; nothing, where nothing did. Nothing changes once `failed` is gone."""
        ...

    async def sample(self, environment: str, check: HealthCheckSpec) -> Sample:
        """One look of the check at what runs there. A program that is not there fails the look; it does not raise."""
        ...

    async def stop(self, environment: str) -> None:
        """Nothing runs there any more, nor comes back. Idempotent."""
        ...
