"""In-memory twin of the port Deployments: scripted programs, which are ready or not and are seen as a test says."""

from __future__ import annotations

from collections.abc import Callable

from fleet.ids import Digest, RunKey
from fleet.ports import Placed, Standing
from fleet.tools import HealthCheckSpec, Sample

__all__ = ["MemoryDeployments"]


class MemoryDeployments:
    """Implements the port Deployments without any program.

    Args:
        starts: of a tree, why its program does not become ready; None when it does.
        looks: what a look of a check finds of the program of a tree.
    """

    def __init__(
        self,
        *,
        starts: Callable[[Digest], str | None] = lambda _: None,
        looks: Callable[[Digest, HealthCheckSpec], Sample] = lambda _, __: Sample(0.0, "well"),
    ) -> None:
        self._starts, self._looks = starts, looks
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
        self._now[name] = (placed, current[0] if current else None)
        return await self.standing(name)

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        if (found := self._now.get(environment)) is None:
            return Standing("nothing")
        current, previous = found
        return Standing("running", key=current.key, previous=previous.key if previous else None)

    async def roll_back(self, environment: str, *, failed: RunKey) -> Standing:
        """See the port."""
        found = self._now.get(environment)
        if found is None or found[0].key != failed:
            return await self.standing(environment)
        if (before := found[1]) is None:
            del self._now[environment]
            return Standing("nothing")
        if (why := self._starts(before.tree)) is not None:
            return Standing("failed", key=failed, previous=before.key, detail=why)
        self._now[environment] = (before, None)
        return await self.standing(environment)

    async def sample(self, environment: str, check: HealthCheckSpec) -> Sample:
        """See the port."""
        if (found := self._now.get(environment)) is None:
            return Sample(value=float("inf"), detail=f"nothing runs in {environment}")
        return self._looks(found[0].tree, check)

    async def stop(self, environment: str) -> None:
        """See the port."""
        self._now.pop(environment, None)
