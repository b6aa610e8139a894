"""Who answers commands on streams that no shard holds: projects, and the fleet as a whole (EV-17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from fleet.ports import Command
from fleet.services.platform_owner import PlatformOwner
from fleet.services.project_owner import ProjectOwner

__all__ = ["BriefOwner", "BriefOwners"]


class BriefOwner(Protocol):
    """Owns streams for the moment of each command."""

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command. Raises what the domain refuses, and LeaseHeld while another owner is at it."""
        ...

    async def work(self) -> None:
        """Whatever its streams owe beside commands is done."""
        ...


@dataclass(frozen=True, slots=True)
class BriefOwners:
    """Projects and the platform, behind one door."""

    projects: ProjectOwner
    platform: PlatformOwner

    async def handle(self, command: Command) -> dict[str, Any]:
        """See `BriefOwner.handle`."""
        owner = self.projects if command.stream.startswith("project:") else self.platform
        return await owner.handle(command)

    async def work(self) -> None:
        """See `BriefOwner.work`."""
        await self.projects.work()
        await self.platform.work()
