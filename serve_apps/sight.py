"""Which stories, tasks and decisions a caller sees: of its projects, and of those the rows of its roles (AP-1, CX-16).

What is hidden looks as if it were not there (AP-25), and that somebody asked for it is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastapi import Request

from fleet.context.row_cut import RowCut, cut_to, ids_of, rows_about
from fleet.context.row_rules import RowRules
from fleet.desk.planning import PlanningDesk
from fleet.desk.platform import PlatformDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.tools.records import unknown_step
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import NotFound, StoryNotFound
from fleet.kernel.ids import Principal, StepId, StoryId
from fleet.story.approvals import check_notes
from fleet.story.state import Decision, StoryState, TaskState

_MAY_OVERRIDE = frozenset({"po", "architect"})


@dataclass(frozen=True, slots=True)
class Sight:
    """Says what each principal sees, by the projects and roles that the registry gives it.

    Args:
        trail: where attempts on what is hidden are recorded; None records none.
        override_s: how long an override may last at most; 0 allows none (CX-18).
        opened: the one story that an override of this request opened, until `until_ms`.
    """

    registry: PrincipalRegistry
    desk: PlanningDesk
    rows: RowRules
    trail: PlatformDesk | None = None
    override_s: int = 0
    opened: StoryId | None = None
    until_ms: int = 0

    def sees(self, who: Principal, project_id: str) -> bool:
        """Whether the principal may see what belongs to the project."""
        projects = self.registry.projects_of(who)
        return projects is None or project_id in projects

    def sees_everything(self, who: Principal) -> bool:
        """Whether no story of any project is hidden from the principal."""
        return self.registry.projects_of(who) is None and self.sees_every_row(who)

    def sees_every_row(self, who: Principal) -> bool:
        """Whether nothing of its projects is hidden from the principal, so that sums of all of it may be told."""
        return self.rows.sees_every_story(who, self.registry.roles_of(who))

    def sees_epic(self, who: Principal, project_id: str, epic_id: str) -> bool:
        """Whether the epic is shown: to those who see each of its stories (CX-11, CX-12)."""
        return self.sees(who, project_id) and self.rows.sees_epic(who, self.registry.roles_of(who), epic_id)

    def sees_story(self, who: Principal, state: StoryState) -> bool:
        """Whether the story is of its projects and a row of its roles."""
        if not self.sees(who, state.project_id):
            return False
        return self._is_open(state.story_id) or self.rows.sees_story(who, self.registry.roles_of(who), state)

    def sees_task(self, who: Principal, state: StoryState, task: TaskState) -> bool:
        """Whether the task of a story that it sees is shown to it."""
        held = self.registry.roles_of(who)
        return self._is_open(state.story_id) or self.rows.sees_task(who, held, task, epic_id=state.epic_id)

    def sees_decision(self, who: Principal, state: StoryState, decision: Decision) -> bool:
        """Whether the decision is shown to it: with its story, or as one that holds beyond it (CX-11)."""
        held = self.registry.roles_of(who)
        if not self.sees_story(who, state):
            return self.sees(who, state.project_id) and self.rows.sees_across(who, held, decision)
        return self._is_open(state.story_id) or self.rows.sees_decision(who, held, decision, epic_id=state.epic_id)

    async def cut(self, who: Principal, state: StoryState, known: RowCut | None = None) -> RowCut | None:
        """What of the story is shown to the principal; None when nothing of it is hidden.

        Args:
            known: that of an earlier version, with which its events need not be read again.
        """
        if self._sees_all_of(who, state.story_id):
            return None
        rows = self.rows.rows_of(who, self.registry.roles_of(who), state)
        if not rows.hidden:
            return None
        begun = known if known is not None and known.rows == rows else RowCut.of(rows, ())
        if state.version <= begun.version:
            return begun
        # What came after the state may be about rows that it does not know.
        count = state.version - begun.version
        return begun.on(await self.desk.events(state.story_id, after=begun.version, limit=count))

    async def cut_again(self, who: Principal, story_id: StoryId, known: RowCut | None) -> RowCut | None:
        """As `cut`, of the story as it is now."""
        return None if self._sees_all_of(who, story_id) else await self.cut(who, await self.desk.state(story_id), known)

    async def shown(self, who: Principal, state: StoryState) -> StoryState:
        """The story with what is shown to the principal alone."""
        cut = await self.cut(who, state)
        return state if cut is None else cut.state(state)

    def outlined(self, who: Principal, state: StoryState) -> StoryState:
        """The story without hidden rows and what is for them, for lists and counts; for anything else see `shown`."""
        if self.sees_every_row(who):
            return state
        rows = self.rows.rows_of(who, self.registry.roles_of(who), state)
        return cut_to(state, ids_of(state) - rows_about(state, rows.hidden))

    async def ids(self, who: Principal, state: StoryState) -> frozenset[str] | None:
        """What a pack or bundle for the principal may be of; None for everything, lessons of other stories too."""
        return None if self._sees_all_of(who, state.story_id) else ids_of(await self.shown(who, state))

    async def known_ids(self, who: Principal, story_id: StoryId | None) -> frozenset[str] | None:
        """Ids of what is shown to the principal of one story that it sees, or of all: None when nothing is hidden."""
        if self.sees_every_row(who):
            return None
        if story_id is not None:
            states = [await self.desk.state(story_id)]
        else:
            states = [state for state in await self.desk.states() if self.sees_story(who, state)]
        shown = [{state.story_id, *ids_of(await self.shown(who, state))} for state in states]
        return frozenset(id for each in shown for id in each)

    async def events(self, who: Principal, state: StoryState, found: list[StoredEvent]) -> list[StoredEvent]:
        """Those of these events of the story that are shown to the principal."""
        cut = await self.cut(who, state)
        return found if cut is None else [event for event in found if cut.takes(event)]

    async def require_whole(self, who: Principal, story_id: StoryId, what: str, *, action: str) -> None:
        """Returns when nothing of a story that the principal sees is hidden from it.

        What is signed, chained or of one piece is shown as a whole or not at all: NotFound, as if there were none.
        """
        if self._sees_all_of(who, story_id) or await self.cut(who, await self.desk.state(story_id)) is None:
            return
        await self.refused(who, action, story_id)
        raise NotFound(f"story {story_id} has no {what}", story_id=story_id)

    async def takes(self, who: Principal, story_id: StoryId) -> bool:
        """Whether there is such a story and the principal sees it now."""
        project = await self.desk.project_of(story_id)
        if project is None or not self.sees(who, project):
            return False
        return self._sees_all_of(who, story_id) or await self._is_row(who, story_id)

    async def require(self, who: Principal, story_id: StoryId) -> StoryId:
        """The id of a story that the principal sees.

        StoryNotFound for any other, word for word the same whether it is hidden or missing; to those from whom nothing
        is hidden whoever looks for the story says that there is none.
        """
        if self.sees_everything(who):
            return story_id
        if await self.takes(who, story_id):
            return story_id
        if await self.desk.project_of(story_id) is not None:
            await self.refused(who, "read_story", story_id)
        raise StoryNotFound(
            f"there is no story {story_id}; `fleet story list` shows those that exist", story_id=story_id
        )

    async def require_task(self, who: Principal, story_id: StoryId, task_id: str) -> str:
        """The id of a task that the principal sees; NotFound for any other, as `require`."""
        if not self._sees_all_of(who, story_id):
            state = await self.desk.state(story_id)
            task = state.tasks.get(task_id)
            if task is None or not self.sees_task(who, state, task):
                if task is not None:
                    await self.refused(who, "read_task", task_id)
                raise NotFound(f"story {story_id} has no task {task_id[:80]!r}", task_id=task_id[:80])
        return task_id

    async def require_step(self, who: Principal, story_id: StoryId, step_id: str) -> StepId:
        """The id of a step that the principal sees; NotFound for any other, word for word as for a missing one."""
        state = await self.desk.state(story_id)
        cut = await self.cut(who, state)
        if cut is not None and step_id in state.steps and step_id not in cut.state(state).steps:
            await self.refused(who, "read_run", step_id)
            raise unknown_step(story_id, StepId(step_id))
        return StepId(step_id)

    async def overriding(self, who: Principal, story_id: StoryId, reason: str, *, action: str) -> Sight:
        """What the principal sees in an incident: all of this story too, for this request alone (CX-18).

        The access is recorded with its reason before anything is answered. Without the right to it, and for what is no
        story of its projects, nothing is otherwise and nothing is told.

        Raises InvalidInput for a reason of fewer than 10 characters; StoreUnavailable when it cannot be recorded.
        """
        held = self.registry.roles_of(who)
        if not self.override_s or self.trail is None or not held & _MAY_OVERRIDE:
            return self
        text = check_notes(reason, "X-Fleet-Override")
        project = await self.desk.project_of(story_id)
        if project is None or not self.sees(who, project) or await self.takes(who, story_id):
            return self
        await self.trail.overridden(who, action, story_id, reason=text)
        return replace(self, opened=story_id, until_ms=self.desk.now_ms + self.override_s * 1000)

    async def refused(self, who: Principal, action: str, what: str) -> None:
        """Record that somebody asked for what is hidden from it; how often within a minute is not told."""
        if self.trail is not None:
            await self.trail.denied(who, action, what, rule_id="CX-16")

    def _is_open(self, story_id: StoryId) -> bool:
        return self.opened == story_id and self.desk.now_ms < self.until_ms

    def _sees_all_of(self, who: Principal, story_id: StoryId) -> bool:
        return self.sees_every_row(who) or self._is_open(story_id)

    async def _is_row(self, who: Principal, story_id: StoryId) -> bool:
        try:
            return self.sees_story(who, await self.desk.state(story_id))
        except StoryNotFound:
            return False


def sight_of(request: Request) -> Sight:
    """What the caller sees: as everybody does, or with the story that an override of this request opened."""
    return getattr(request.state, "sight", None) or request.app.state.sight


def sees_project(request: Request, who: Principal, project_id: str) -> bool:
    """Whether the caller may see what belongs to the project."""
    return sight_of(request).sees(who, project_id)


async def require_sight(request: Request, who: Principal, story_id: StoryId) -> StoryId:
    """The id, when the caller sees the story; StoryNotFound when it is hidden.

    Of a read, `X-Fleet-Override` gives the reason of an incident override (CX-18).
    """
    reason = request.headers.get("x-fleet-override")
    if reason is not None and request.method == "GET":
        action = f"GET {request.url.path}"[:200]
        request.state.sight = await sight_of(request).overriding(who, story_id, reason, action=action)
    return await sight_of(request).require(who, story_id)


def require_project(request: Request, who: Principal, project_id: str) -> None:
    """Returns when the caller may see what belongs to the project; NotFound when it is hidden, whether there or not."""
    if not sees_project(request, who, project_id):
        raise NotFound(f"there is no project {project_id[:80]!r}", project_id=project_id[:80])
