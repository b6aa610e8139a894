"""What operators and boards look at over HTTP: tasks that wait, where work stands, rules in force, dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from fleet.desk.principals import PrincipalRegistry
from fleet.desk.stories import StoryDesk
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import EntityId, Principal
from fleet.log.port import DeadLetter, DeadLetters, HasBacklog
from fleet.report.workflow import Stay, first_try_rates, stays
from fleet.story.state import StoryState, TaskState
from fleet.story.time_limits import TimeLimit, overdue_tasks
from serve_apps.requests import Caller, Key, Stories, require_one_of
from serve_apps.routes.projects import project_of_query
from serve_apps.sight import sight_of
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at, at_or_none

operations_router = APIRouter(prefix="/api")


class Me(Wire):
    """Who the caller is."""

    principal: str
    roles: tuple[str, ...]
    projects: tuple[str, ...] | None
    """The projects that the caller sees; null for all."""


class WaitingTask(Wire):
    """A task that waits for somebody."""

    task_id: str
    story_id: str
    story_title: str
    title: str
    role: str
    state: str
    priority: int
    waits_for: str
    since: str | None
    """When it came to where it waits."""
    overdue: bool
    """It is past a time limit of the workflow."""
    overdue_s: int | None
    """By how many seconds; null while it is not."""


class WaitingTaskList(Wire):
    """Tasks that wait, or that are overdue; those of the oldest stories first."""

    items: tuple[WaitingTask, ...]


class WorkflowStats(Wire):
    """Where stories and tasks stand."""

    stories: dict[str, int]
    dispositions: dict[str, int]
    tasks: dict[str, int]
    gates: dict[str, int]
    """Requests that wait, by gate."""
    parked: dict[str, int]
    """Parked stories by cause."""
    paused: int
    rejections: int
    """Reviews and people that sent a task back, over all tasks."""
    open_claims: int
    sla_breaches: int
    """Time limits that tasks passed."""
    overdue: int
    """Tasks that are past one of them now."""
    stays: dict[str, Stay]
    """By task state, how long tasks were in it that left it."""
    first_try: dict[str, float | None]
    """By role that reviews, the share of tasks that it let pass at once, 0 to 1; null before the first."""


class Definitions(Wire):
    """One file of rules in force, and its digest."""

    file: str
    digest: str
    content: dict[str, Any]


# Source: EV-22.
class LetterView(Wire):
    """Work that failed each time it was tried, and stands still for a person."""

    letter_id: str
    source: str
    stream: str
    version: int
    code: str
    reason: str
    attempts: int
    first_seen: str
    last_seen: str


class LetterList(Wire):
    """Dead letters, the oldest first."""

    items: tuple[LetterView, ...]


@operations_router.get("/me", response_model=Me, operation_id="me_api_me_get")
async def me(request: Request, who: Caller) -> Me:
    """The principal that the token stands for, with its roles and projects."""
    registry: PrincipalRegistry = request.app.state.registry
    projects = registry.projects_of(who)
    return Me(
        principal=who,
        roles=tuple(sorted(registry.roles_of(who))),
        projects=None if projects is None else tuple(sorted(projects)),
    )


async def _seen(request: Request, stories: StoryDesk, who: Principal) -> list[StoryState]:
    sight = sight_of(request)
    return [sight.outlined(who, s) for s in await stories.planning.states() if sight.sees_story(who, s)]


_WAITS = {"pending_arch_review": "architect", "pending_qa": "qa", "pending_po_approval": "po"}
_REVIEWS = {"arch_reviewing": "architect", "qa_testing": "qa"}


@operations_router.get(
    "/tasks/pending", response_model=WaitingTaskList, operation_id="pending_tasks_api_tasks_pending_get"
)
async def pending_tasks(
    request: Request,
    stories: Stories,
    who: Caller,
    role: Annotated[str | None, Query(max_length=60)] = None,
    overdue: Annotated[
        bool, Query(description="Those past a time limit, the ones that somebody works on too.")
    ] = False,
) -> WaitingTaskList:
    """Tasks that wait for a role, for its work or its review: what has waited longest comes first."""
    seen = [state for state in await _seen(request, stories, who) if not state.is_over]
    waiting = [
        (t.entered_ms.get(t.state, state.created_ms), _waiting(state, t, late.get(t.task.task_id), stories.now_ms))
        for state in sorted(seen, key=lambda s: (s.created_ms, s.story_id))
        for late in (_late(state, stories),)
        for t in state.tasks.values()
        if (t.task.task_id in late if overdue else _is_offered(t)) and sight_of(request).sees_task(who, state, t)
    ]
    rows = [row for _, row in sorted(waiting, key=lambda each: each[0])]
    return WaitingTaskList(items=tuple(row for row in rows if role is None or row.waits_for == role))


def _is_offered(task: TaskState) -> bool:
    """Somebody may take it: nobody began with it, nobody reviews it yet, or who worked on it gave it back (LC-130)."""
    return task.state == "todo" or task.state in _WAITS or (task.state == "implementing" and task.claim is None)


def _waiting(state: StoryState, task: TaskState, limit: TimeLimit | None, now_ms: int) -> WaitingTask:
    return WaitingTask(
        task_id=task.task.task_id,
        story_id=state.story_id,
        story_title=state.content.title,
        title=task.task.title,
        role=task.task.role,
        state=task.state,
        priority=task.task.priority,
        waits_for=(_WAITS | _REVIEWS).get(task.state, task.task.role),
        since=at_or_none(task.entered_ms.get(task.state)),
        overdue=limit is not None,
        overdue_s=(now_ms - limit.due_ms) // 1000 if limit else None,
    )


NamedProject = Annotated[EntityId | None, Depends(project_of_query)]


@operations_router.get(
    "/workflow/stats", response_model=WorkflowStats, operation_id="workflow_stats_api_workflow_stats_get"
)
async def workflow_stats(request: Request, stories: Stories, who: Caller, project_id: NamedProject) -> WorkflowStats:
    """Stories by state, tasks by state, gates that wait, parked stories by cause; of all projects, or of one."""
    seen = [s for s in await _seen(request, stories, who) if project_id is None or s.project_id == project_id]
    tasks = [task for state in seen for task in state.tasks.values()]
    lines = [stories.planning.line(state) for state in seen]
    return WorkflowStats(
        stories=dict(Counter(state.state for state in seen)),
        dispositions=dict(Counter(line.disposition for line in lines)),
        tasks=dict(Counter(task.state for task in tasks)),
        gates=dict(Counter(gate for line in lines for gate in line.gates)),
        parked=dict(Counter(line.parked for line in lines if line.parked and line.disposition == "parked")),
        paused=sum(line.is_paused for line in lines),
        rejections=sum(sum(task.rejections.values()) for task in tasks) + sum(_sent_back(state) for state in seen),
        open_claims=sum(task.held_by is not None for task in tasks),
        sla_breaches=sum(task.breaches for task in tasks),
        overdue=sum(len(_late(state, stories)) for state in seen),
        stays=stays(tasks),
        first_try=first_try_rates(tasks),
    )


def _late(state: StoryState, stories: StoryDesk) -> Mapping[str, TimeLimit]:
    return overdue_tasks(state, stories.planning.fsm_of(state).task_workflow, now_ms=stories.now_ms)


def _sent_back(state: StoryState) -> int:
    """How often a person refused the work on a task of the story."""
    refused = [a for a in state.approvals.values() if a.request.gate == "task_acceptance" and a.status == "rejected"]
    return len(refused)


@operations_router.get("/lifecycles", response_model=Definitions, operation_id="lifecycles_api_lifecycles_get")
async def lifecycles(request: Request, stories: Stories, who: Caller) -> Definitions:
    """States, transitions, guards and gates of every lifecycle."""
    return _definitions(stories, "fsm.yaml", stories.rules.fsm)


@operations_router.get("/rigor", response_model=Definitions, operation_id="rigor_api_rigor_get")
async def rigor(request: Request, stories: Stories, who: Caller) -> Definitions:
    """Weights, thresholds and hard gates of every rigor level."""
    return _definitions(stories, "rigor.yaml", stories.rules.rigor)


def _definitions(stories: StoryDesk, file: str, content: BaseModel) -> Definitions:
    digest = stories.digests.get(file, "")
    return Definitions(file=file, digest=digest, content=content.model_dump(mode="json", by_alias=True))


class ConsumerView(Wire):
    """One group of consumers, and what waits for it."""

    group: str
    what: str
    pending: int
    """Entries that were not acknowledged, whether they were handed out or not."""
    oldest_ms: int
    """How long the oldest of them waits; 0 when none does."""


class ConsumerList(Wire):
    """Groups of consumers by name."""

    items: tuple[ConsumerView, ...]


def _require_admin(request: Request, who: Principal) -> None:
    require_one_of(request, who, "admin", rule_id="AP-95")


_WAITS_FOR = {"council": "commands for the council shards", "projector": "hints for the projectors of the graph"}


@operations_router.get(
    "/streams/consumers", response_model=ConsumerList, operation_id="consumers_api_streams_consumers_get"
)
async def consumers(request: Request, who: Caller) -> ConsumerList:
    """What waits for each group of consumers, and for how long."""
    _require_admin(request, who)
    groups: Mapping[str, HasBacklog] = request.app.state.consumers
    if not groups:
        raise StoreUnavailable("this front has no consumers wired")
    backlogs = {name: await groups[name].backlog() for name in sorted(groups)}
    return ConsumerList(
        items=tuple(
            ConsumerView(group=name, what=_WAITS_FOR[name], pending=one.pending, oldest_ms=one.oldest_ms)
            for name, one in backlogs.items()
        )
    )


def _letters(request: Request, who: Caller) -> DeadLetters:
    _require_admin(request, who)
    letters: DeadLetters | None = request.app.state.letters
    if letters is None:
        raise StoreUnavailable("this front has no dead letters wired")
    return letters


Letters = Annotated[DeadLetters, Depends(_letters)]


@operations_router.get("/dlq", response_model=LetterList, operation_id="dead_letters_api_dlq_get")
async def dead_letters(letters: Letters, who: Caller) -> LetterList:
    """Work that was set aside, and why."""
    return LetterList(items=tuple(_letter(letter) for letter in await letters.letters()))


@operations_router.post(
    "/dlq/{letter_id}/retry", response_model=LetterView, operation_id="retry_letter_api_dlq__letter_id__retry_post"
)
async def retry_letter(letters: Letters, who: Caller, key: Key, letter_id: str) -> LetterView:
    """Try such work again, once its cause is mended."""
    return _letter(await letters.retry(letter_id))


def _letter(letter: DeadLetter) -> LetterView:
    failure = letter.failure
    return LetterView(
        letter_id=letter.letter_id,
        source=failure.source,
        stream=failure.stream,
        version=failure.version,
        code=failure.code,
        reason=failure.reason,
        attempts=letter.attempts,
        first_seen=at(letter.first_seen_ms),
        last_seen=at(letter.last_seen_ms),
    )
