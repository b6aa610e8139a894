"""A story cut to the tasks and decisions that somebody sees, and what else is about the hidden ones (CX-16).

Pure. What is left out is left out whole: an event that names a hidden row, a question about it, a council or a step for
it. What the cut does not know is hidden, so a row that was recorded after it was made is never shown by mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fleet.events.envelope import StoredEvent
from fleet.events.plan import PlanProposed, Task
from fleet.story.state import Decision, Plan, StoryState, TaskState

_NAMES = re.compile(rb"[A-Za-z0-9_-]+")
_STRINGS = re.compile(rb'"([^"\\]*)"')
_INTRODUCED = {
    "ApprovalRequested": "approval_id",
    "CouncilOpened": "council_id",
    "IncidentOpened": "incident_id",
    "MilestoneReached": "milestone_id",
    "QuestionRaised": "question_id",
    "StepStarted": "step_id",
    "WorkspaceReported": "run_id",
}
"""Events that bring something new, and the field that names it: what is about a hidden row is hidden with it."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class VisibleRows:
    """Ids of the tasks, of every plan version, and decisions of one story: those that somebody sees, and the others."""

    shown: frozenset[str]
    hidden: frozenset[str]


@dataclass(frozen=True, slots=True)
class RowCut:
    """What of one story is shown to somebody, up to a version.

    Attributes:
        hidden: ids of hidden rows, and of whatever is about them.
        version: of the last event that was looked at; later ones are not shown.
    """

    rows: VisibleRows
    hidden: frozenset[str] = frozenset()
    version: int = 0

    @classmethod
    def of(cls, rows: VisibleRows, events: Iterable[StoredEvent]) -> RowCut:
        """The cut after these events, which begin with the first one."""
        return cls(rows, rows.hidden).on(events)

    def on(self, events: Iterable[StoredEvent]) -> RowCut:
        """The cut after these events more."""
        hidden, version = set(self.hidden), self.version
        for event in events:
            version = event.version
            name = _INTRODUCED.get(event.type)
            if name is not None and _is_named(event.body, hidden):
                hidden.add(str(json.loads(event.body).get(name)))
        return RowCut(self.rows, frozenset(hidden), version)

    def takes(self, event: StoredEvent) -> bool:
        """Whether the event is shown: it names nothing that is hidden."""
        return event.version <= self.version and not _is_named(event.body, self.hidden)

    def names(self, value: Any) -> bool:
        """Whether a text, or the JSON form of a value, names something hidden."""
        return _is_named(json.dumps(value, ensure_ascii=False, default=str).encode(), self.hidden)

    def state(self, full: StoryState) -> StoryState:
        """The story with what is shown alone."""
        return cut_to(full, ids_of(full) - self.hidden)


def ids_of(state: StoryState) -> frozenset[str]:
    """The ids of all that a cut may leave out of the story."""
    planned = (task.task_id for plan in state.plans.values() for task in plan.proposal.tasks)
    holders = (state.tasks, state.decisions, state.questions, state.councils, state.approvals, state.incidents)
    return frozenset({*planned, *(id for each in holders for id in each)})


def rows_about(state: StoryState, hidden: frozenset[str]) -> frozenset[str]:
    """These tasks and decisions, and the councils, approvals and incidents that are for one of them.

    It looks at no text, as a cut does: enough to count by, and it needs no events.
    """
    councils = {id for id, one in state.councils.items() if one.opened.task_id in hidden}
    steps = {
        id for id, one in state.steps.items() if {one.started.task_id, one.started.council_id} & (hidden | councils)
    }
    named = hidden | councils | steps
    approvals = {id for id, one in state.approvals.items() if one.request.subject.id in named}
    return hidden | councils | approvals | {id for id, one in state.incidents.items() if one.task_id in hidden}


def _shown_of(given: Mapping[str, _Value], shown: frozenset[str]) -> dict[str, _Value]:
    """The entries whose ids are shown."""
    return {id: value for id, value in given.items() if id in shown}


def cut_to(state: StoryState, shown: frozenset[str]) -> StoryState:
    """The story with what has one of these ids alone. A summary tells of all of it: it goes with the first row.

    Args:
        shown: ids as `ids_of` names them; what is not among them is hidden.
    """
    hidden = ids_of(state) - shown
    if not hidden:
        return state
    steps = {
        id: step
        for id, step in state.steps.items()
        if _is_of(step.started.task_id, shown) and _is_of(step.started.council_id, shown)
    }
    unseen = (step.finished for id, step in state.steps.items() if id not in steps)
    spent = sum(end.cost.tokens_in + end.cost.tokens_out for end in unseen if end is not None)
    reports = {tree: report for tree, report in state.reports.items() if _is_of(report.task_id, shown)}
    return state.with_(
        tasks={id: _task_state(task, shown) for id, task in _shown_of(state.tasks, shown).items()},
        decisions={id: _decision(one, shown, hidden) for id, one in _shown_of(state.decisions, shown).items()},
        plans={id: _plan(plan, shown) for id, plan in state.plans.items()},
        questions=_shown_of(state.questions, shown),
        councils=_shown_of(state.councils, shown),
        approvals=_shown_of(state.approvals, shown),
        incidents=_shown_of(state.incidents, shown),
        steps=steps,
        tokens=max(0, state.tokens - spent),
        checkpoints={
            id: replace(one, task_states=_shown_of(one.task_states, shown)) for id, one in state.checkpoints.items()
        },
        reports=reports,
        scores={tree: score for tree, score in state.scores.items() if tree in reports or tree not in state.reports},
        summaries={},
        park=replace(state.park, detail=state.park.cause)
        if state.park and _is_named(state.park.detail.encode(), hidden)
        else state.park,
    )


def _is_of(id: str | None, shown: frozenset[str]) -> bool:
    return id is None or id in shown


def _task(task: Task, shown: frozenset[str]) -> Task:
    refs = tuple(ref for ref in task.acceptance_refs if ref.startswith("ac-") or ref in shown)
    needs = tuple(id for id in task.depends_on if id in shown)
    return task.model_copy(update={"depends_on": needs, "acceptance_refs": refs})


def _task_state(task: TaskState, shown: frozenset[str]) -> TaskState:
    return replace(task, task=_task(task.task, shown))


def _decision(decision: Decision, shown: frozenset[str], hidden: frozenset[str]) -> Decision:
    proposed = decision.proposed
    changes = {
        "affects": tuple(id for id in proposed.affects if id in shown),
        "links": tuple(link for link in proposed.links if link.decision_id in shown),
        "based_on": tuple(one for one in proposed.based_on if one.id not in hidden),
    }
    return replace(decision, proposed=proposed.model_copy(update=changes))


def _plan(plan: Plan, shown: frozenset[str]) -> Plan:
    made: PlanProposed = plan.proposal
    places = {place: new for new, place in enumerate(n for n, task in enumerate(made.tasks) if task.task_id in shown)}
    changes = {
        "tasks": tuple(_task(task, shown) for task in made.tasks if task.task_id in shown),
        "dependencies": tuple(d for d in made.dependencies if {d.from_, d.to} <= shown),
        "task_decisions": tuple(
            one.model_copy(update={"task_index": places[one.task_index]})
            for one in made.task_decisions
            if one.task_index in places
        ),
    }
    return replace(plan, proposal=made.model_copy(update=changes))


def _is_named(text: bytes, ids: Iterable[str]) -> bool:
    """Whether one of the ids stands in the text as a word, or as a whole string of its JSON."""
    names = {id.encode() for id in ids}
    return bool(names) and not (names.isdisjoint(_NAMES.findall(text)) and names.isdisjoint(_STRINGS.findall(text)))
