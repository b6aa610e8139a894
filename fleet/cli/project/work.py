"""Work on projects from the command line: with their desk, and commands as the local user."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from fleet.cli.local.local_principals import local_principal
from fleet.cli.story.stories import with_desk
from fleet.desk.planning import PlanningDesk
from fleet.desk.projects import ProjectDesk
from fleet.kernel.ids import EntityId
from fleet.projects.project_commands import ProjectCommand
from fleet.wiring.desk.projects import open_project_desk
from fleet.wiring.endpoints import Endpoints

Work = Callable[[ProjectDesk], Awaitable[int]]


def with_projects(work: Work) -> int:
    """The exit code of the work, done with the projects of the running fleet; StoreUnavailable when none runs."""

    async def body(desk: PlanningDesk, endpoints: Endpoints) -> int:
        async with open_project_desk(endpoints, desk) as projects:
            return await work(projects)

    return with_desk(body)


async def send(desk: ProjectDesk, project: str, sent: ProjectCommand, *, key: str = "") -> dict[str, Any]:
    """What the project answered this command with; without a key it is a new one each time."""
    key = key or f"{sent.command}-{secrets.token_hex(8)}"
    return await desk.require(EntityId(project), sent, principal=local_principal(), key=key)
