"""In-memory twin of the port Deployments: scripted programs, which are ready or not and are seen as a test says."""

from __future__ import annotations

from collections.abc import Callable

from fleet.deploy.port import EndedRevision, Occupancy, Placed, Standing
from fleet.kernel.ids import Digest, RunKey
from fleet.policy.deploy import HealthCheckSpec, HealthSample

_LOOK = HealthCheckSpec(name="ready", kind="http", target="/", threshold=0)


class MemoryDeployments:
    """Implements the port Deployments without any program.

    Args:
        starts: of a tree, why its program does not become ready; None when it does.
        looks: what a look of a check finds of the program of a tree.
        now_ms: the clock.
    """

    def __init__(
        self,
        *,
        starts: Callable[[Digest], str | None] = lambda _: None,
        looks: Callable[[Digest, HealthCheckSpec], HealthSample] = lambda _, __: HealthSample(0.0, "well"),
        now_ms: Callable[[], int] = lambda: 1,
    ) -> None:
        self._starts, self._looks, self._now_ms = starts, looks, now_ms
        self._since: dict[str, int] = {}
        self._ended: dict[str, EndedRevision] = {}
        self._now: dict[str, tuple[Placed, Placed | None]] = {}
        self.deployed: list[Placed] = []
        """Everything that was started, in order."""

    def reached(self, port: int) -> Placed | None:
        """What people reach by a port of the node: what runs in the environment whose target exposes it."""
        return next((now for now, _ in self._now.values() if now.target.expose == port), None)

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        name = placed.target.environment
        current = self._now.get(name)
        if current is not None and current[0].key == placed.key:
            return await self.standing(name)
        self.deployed.append(placed)
        if (why := self._starts(placed.tree)) is not None:
            now = await self.standing(name)
            return Standing("failed", key=now.key, previous=now.previous, detail=why)
        self._now[name], self._since[name] = (placed, current[0] if current else None), self._now_ms()
        return await self.standing(name)

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        if (revisions := self._now.get(environment)) is None:
            return Standing("nothing")
        current, previous = revisions
        return Standing("running", key=current.key, previous=previous.key if previous else None)

    async def occupancy(self, environment: str) -> Occupancy:
        """See the port."""
        ended = self._ended.get(environment)
        if (revisions := self._now.get(environment)) is None:
            return Occupancy(ended=ended)
        current, previous = revisions
        ready = _LOOK.model_copy(update={"target": current.target.ready.path})
        return Occupancy(
            running=current,
            since_ms=self._since[environment],
            answers=self._looks(current.tree, ready).value == 0,
            previous=previous.key if previous else None,
            ended=ended,
        )

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """See the port."""
        revisions = self._now.get(environment)
        if revisions is None or revisions[0].key != failed:
            return await self.standing(environment)
        if (before := revisions[1]) is None:
            del self._now[environment]
            self._note(environment, failed, told)
            return Standing("nothing")
        if (why := self._starts(before.tree)) is not None:
            return Standing("failed", key=failed, previous=before.key, detail=why)
        self._now[environment], self._since[environment] = (before, None), self._now_ms()
        self._note(environment, failed, told)
        return await self.standing(environment)

    async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """See the port."""
        if (revisions := self._now.get(environment)) is None:
            return HealthSample(value=float("inf"), detail=f"nothing runs in {environment}")
        return self._looks(revisions[0].tree, check)

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """See the port."""
        revisions = self._now.get(environment)
        if revisions is not None and only in (None, revisions[0].key):
            del self._now[environment]
            self._note(environment, revisions[0].key, told)
        return await self.standing(environment)

    def _note(self, environment: str, key: RunKey, told: str) -> None:
        if told:
            self._ended[environment] = EndedRevision(key, told)
