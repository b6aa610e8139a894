"""Who answers commands on streams that no shard holds: projects, and the fleet as a whole (EV-17)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.log.port import Command
from fleet.projects.platform_owner import PlatformOwner
from fleet.projects.project_owner import ProjectOwner


@dataclass(frozen=True, slots=True)
class BriefOwners:
    """Projects and the platform, behind one door. Implements BriefOwner."""

    projects: ProjectOwner
    platform: PlatformOwner

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command, from the owner of its stream."""
        owner = self.projects if command.stream.startswith("project:") else self.platform
        return await owner.handle(command)

    async def work(self) -> None:
        """Whatever both owe beside commands is done."""
        await self.projects.work()
        await self.platform.work()
