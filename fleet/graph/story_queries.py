"""Named queries about one story as a whole, and about what is open in a project (GR-85, GR-86, GR-90, GR-95)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from fleet.graph.query import MAX_PAGE, NodeId, Query
from fleet.graph.schema import Label

_MAX_ROWS, _MAX_APPROVALS = 2_000, 5_000
_MILESTONES, _FALLBACK_DECISIONS = 10, 5
_LIVE = ("PROPOSED", "ACCEPTED")
_OVER = ("done", "cancelled")

Row = dict[str, Any]


class _StoryQuery(Query):
    """A query whose answer is put together from several parts of one story, read in one transaction."""

    story_id: NodeId

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story."""
        return Label.STORY, self.story_id

    def params(self) -> Row:
        """With the bounds of what is looked at."""
        return {**self.model_dump(), "limit": _MAX_ROWS, "milestones": _MILESTONES}


class RehydrationPack(_StoryQuery):
    """What CX-41 tells of a story to a role, in one row and one round trip (GR-85).

    The adopted plan wins; without one the latest proposed plan is told, and without any there are no tasks (CX-42).
    Tags and summaries are in the log alone. Decisions are those that affect a task of the role; if there are none, the
    first five.
    """

    rows = ("criteria", "constraints", "needs", "blocked_by", "tasks", "links")

    role: Annotated[str, Field(min_length=1, max_length=60)]

    @property
    def statements(self) -> tuple[str, ...]:
        """One for each part."""
        return (
            "story_header",
            "story_plans",
            "story_tasks",
            "story_decisions",
            "story_milestones",
            "story_questions",
        )

    def shaped(self, rows: list[Row]) -> list[Row]:
        """One row."""
        parts = _parts(rows)
        plan = _plan_of(parts["plan"])
        tasks = _tasks_of(parts["task"], plan)
        mine = {task["id"] for task in tasks if task["role"] == self.role}
        decisions = _relevant([d for d in parts["decision"] if d["status"] in _LIVE], mine)
        return [
            {
                "role": self.role,
                "case_header": parts["story"][0],
                "plan_header": plan,
                "role_tasks": [task for task in tasks if task["id"] in mine],
                "decisions_relevant": [_without(d, "tasks", "links") for d in decisions],
                "decision_dependencies": [{"src": d["id"], **link} for d in decisions for link in d["links"]],
                "impacted_tasks": [
                    {"decision_id": d["id"], "task_id": task["id"], "title": task["title"]}
                    for d in decisions
                    for task in d["tasks"]
                ],
                "recent_milestones": sorted(parts["milestone"], key=lambda m: m["v"]),
                "open_questions": parts["question"],
            }
        ]


class ReportData(_StoryQuery):
    """One row with what a report says of a story's beginning and end (GR-86, RP-10). It has the numbers of its parts,
    too.

    Numbers are by state, status or outcome (RP-29); tasks are those of the adopted plan, or of the latest one.
    """

    rows = ("criteria", "constraints", "needs", "blocked_by", "tasks", "links")

    @property
    def statements(self) -> tuple[str, ...]:
        """One for each part."""
        return (
            "story_header",
            "story_plans",
            "story_tasks",
            "story_decisions",
            "story_approvals",
            "story_councils",
            "story_runs",
            "story_questions",
            "story_milestones",
        )

    def shaped(self, rows: list[Row]) -> list[Row]:
        """One row."""
        parts = _parts(rows)
        plan = _plan_of(parts["plan"])
        tasks = _tasks_of(parts["task"], plan)
        return [
            {
                **parts["story"][0],
                "plan": plan,
                "plan_versions": len(parts["plan"]),
                "tasks": tasks,
                "decisions": parts["decision"],
                "approvals": parts["approval"],
                "councils": parts["council"],
                "open_questions": parts["question"],
                "recent_milestones": sorted(parts["milestone"], key=lambda m: m["v"]),
                "tasks_by_state": _numbers(tasks, "state"),
                "tasks_by_role": _numbers(tasks, "role"),
                "decisions_by_status": _numbers(parts["decision"], "status"),
                "approvals_by_status": _numbers(parts["approval"], "status"),
                "councils_by_status": _numbers(parts["council"], "status"),
                "runs_by_outcome": {row["outcome"]: row["number"] for row in parts["runs"]},
            }
        ]


class TaskBlockers(_StoryQuery):
    """Per task of the plan that is not over, the chain of what it waits for, by (priority, id) (GR-90).

    `waits_for` holds first what the task itself waits for, then what that waits for, each once: tasks that are not done
    yet, questions and approvals. `distance` counts the steps.
    """

    rows = ("needs", "blocked_by")

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE

    @property
    def statements(self) -> tuple[str, ...]:
        """The plans, to know which one counts, and the tasks."""
        return ("story_plans", "story_tasks")

    def shaped(self, rows: list[Row]) -> list[Row]:
        """One row for each task."""
        parts = _parts(rows)
        tasks = {task["id"]: task for task in _tasks_of(parts["task"], _plan_of(parts["plan"]))}
        blocked = [
            {
                "id": task["id"],
                "title": task["title"],
                "state": task["state"],
                "priority": task["priority"],
                "waits_for": _chain(task["id"], tasks),
            }
            for task in tasks.values()
            if task["state"] not in _OVER
        ]
        # What has no priority is no more than named by the plan.
        return sorted(blocked, key=lambda row: (MAX_PAGE if row["priority"] is None else row["priority"], row["id"]))

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit


class OpenWork(Query):
    """What is open in a project: a row for each story that is not over, by (state, id) (GR-95).

    `parked` is the cause where it waits for a person, `pending` its approvals that nobody decided yet.
    """

    project_id: NodeId
    limit: Annotated[int, Field(ge=1, le=500)] = 500

    @property
    def statements(self) -> tuple[str, ...]:
        """The stories, and every approval that waits: those of the project are told apart here."""
        return ("open_stories", "pending_approvals")

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The project."""
        return Label.PROJECT, self.project_id

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit

    def params(self) -> Row:
        """With the bounds of what is looked at."""
        return {"project_id": self.project_id, "limit": _MAX_ROWS, "approvals": _MAX_APPROVALS}

    def shaped(self, rows: list[Row]) -> list[Row]:
        """One row for each story."""
        parts = _parts(rows)
        pending: dict[str, list[Row]] = {}
        for approval in parts["approval"]:
            pending.setdefault(approval["story_id"], []).append(_without(approval, "story_id"))
        stories = [
            {**story, "parked": _cause(story["disposition"]), "pending": pending.get(story["id"], [])}
            for story in parts["story"]
        ]
        return sorted(stories, key=lambda row: (row["state"] or "", row["id"]))


def _parts(rows: Iterable[Row]) -> Mapping[str, list[Row]]:
    parts: dict[str, list[Row]] = {
        name: []
        for name in ("story", "plan", "task", "decision", "milestone", "question", "approval", "council", "runs")
    }
    for row in rows:
        parts[row["part"]].append(_without(row, "part"))
    return parts


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _plan_of(plans: list[Row]) -> Row | None:
    """The adopted plan, else the latest that is proposed."""
    proposed = [plan for plan in plans if plan["status"] == "proposed"]
    return next((plan for plan in plans if plan["current"]), proposed[0] if proposed else None)


def _tasks_of(tasks: list[Row], plan: Row | None) -> list[Row]:
    return [_without(task, "plan_id") for task in tasks if plan is not None and task["plan_id"] == plan["id"]]


def _relevant(decisions: list[Row], tasks: set[str]) -> list[Row]:
    affecting = [d for d in decisions if tasks & {task["id"] for task in d["tasks"]}]
    return affecting or decisions[:_FALLBACK_DECISIONS]


def _numbers(rows: list[Row], name: str) -> dict[str, int]:
    return dict(sorted(Counter(row[name] or "unknown" for row in rows).items()))


def _chain(task_id: str, tasks: Mapping[str, Row]) -> list[Row]:
    """What is waited for, nearest first; a circle is followed once."""
    waited_for: dict[str, Row] = {}
    ring, distance = [task_id], 0
    while ring:
        distance += 1
        following: list[str] = []
        for one in ring:
            for row in _waits(tasks[one], tasks):
                if row["id"] not in waited_for and row["id"] != task_id:
                    waited_for[row["id"]] = {**row, "distance": distance}
                    following += [row["id"]] if row["id"] in tasks else []
        ring = following
    return list(waited_for.values())


def _waits(task: Row, tasks: Mapping[str, Row]) -> list[Row]:
    needed = [tasks[need] for need in task["needs"] if need in tasks and tasks[need]["state"] not in _OVER]
    rows = [{"kind": "Task", "id": need["id"], "reason": f"is {need['state']}"} for need in needed]
    return rows + [dict(row) for row in task["blocked_by"]]


def _cause(disposition: str | None) -> str | None:
    before, colon, cause = (disposition or "").partition(":")
    return cause if colon and before == "parked" else None
