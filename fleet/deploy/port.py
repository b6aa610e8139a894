"""Port: the environments of a fleet, where accepted trees run (LC-49)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.deploy import DeployTarget, HealthCheckSpec, HealthSample


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


@dataclass(frozen=True, slots=True)
class EndedRevision:
    """What a person ended in an environment."""

    key: RunKey
    told: str
    """Who did what, and why."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What is in an environment, as it is shown to people."""

    running: Placed | None = None
    since_ms: int = 0
    """When it became ready, in milliseconds since 1970 UTC; 0 while nothing runs."""
    answers: bool = False
    """Whether it answered the path of its target's `ready` just now."""
    previous: RunKey | None = None
    """Of what a rollback goes back to."""
    ended: EndedRevision | None = None
    """What a person ended there last."""


class Deployments(Protocol):
    """Every method raises SandboxUnavailable where nothing could hold the program, StoreUnavailable in an outage.

    Those that start a program raise PolicyDenied where it may not have a secret that its target names, and NotFound
    where nobody has it; nothing is changed then. No value is ever part of what they return or raise.
    """

    async def deploy(self, placed: Placed) -> Standing:
        """It runs in the environment, in place of what ran before; `failed` once it is sure that it does not.

        Returns when it is ready, at the latest `target.ready.within_s` after it was started, which takes at most 100 s
        more where its place has to be made first. What ran before ends only then; until
        then, and after a failure, people reach it by the way that its own target declares. A key that runs already
        changes nothing.
        """
        ...

    async def standing(self, environment: str) -> Standing:
        """What runs there now. Changes nothing."""
        ...

    async def occupancy(self, environment: str) -> Occupancy:
        """What is there, after one look at it; waits for no deployment that is under way. Changes nothing."""
        ...

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """What ran before `failed` runs again; nothing, where nothing did. Nothing changes once `failed` is gone.

        `told` is what a person did and why; `occupancy` has it from then on.
        """
        ...

    async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """One look of the check at what runs there. A program that is not there fails the look; it does not raise."""
        ...

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """Nothing runs there any more, nor comes back, and there is nothing to go back to. Idempotent.

        Something else than `only` runs on as if nothing had been asked. `told` as in `roll_back`.
        """
        ...
