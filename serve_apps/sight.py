"""Which stories a caller may see: those of its projects. What is hidden looks as if it were not there (AP-1, AP-25)."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from fleet.errors import NotFound, StoryNotFound
from fleet.ids import Principal, StoryId
from fleet.services.planning_desk import PlanningDesk
from fleet.services.principals import PrincipalRegistry

__all__ = ["Sight", "require_project", "require_sight", "sees_project"]


@dataclass(frozen=True, slots=True)
class Sight:
    """Says what each principal sees, by the projects that the registry gives it."""

    registry: PrincipalRegistry
    desk: PlanningDesk

    def sees(self, who: Principal, project_id: str) -> bool:
        """Whether the principal may see what belongs to the project."""
        projects = self.registry.projects_of(who)
        return projects is None or project_id in projects

    async def require(self, who: Principal, story_id: StoryId) -> StoryId:
        """The id, when the principal sees the story or there is none; StoryNotFound when it is hidden."""
        if self.registry.projects_of(who) is None:
            return story_id
        project = await self.desk.project_of(story_id)
        if project is not None and not self.sees(who, project):
            raise StoryNotFound(
                f"there is no story {story_id}; `fleet story list` shows those that exist", story_id=story_id
            )
        return story_id


def _of(request: Request) -> Sight:
    return Sight(request.app.state.registry, request.app.state.desk)


def sees_project(request: Request, who: Principal, project_id: str) -> bool:
    """Whether the caller may see what belongs to the project."""
    return _of(request).sees(who, project_id)


async def require_sight(request: Request, who: Principal, story_id: StoryId) -> StoryId:
    """The id, when the caller sees the story or there is none; StoryNotFound when it is hidden."""
    return await _of(request).require(who, story_id)


def require_project(request: Request, who: Principal, project_id: str) -> None:
    """Returns when the caller may see what belongs to the project; NotFound when it is hidden, whether there or not."""
    if not sees_project(request, who, project_id):
        raise NotFound(f"there is no project {project_id[:80]!r}", project_id=project_id[:80])
