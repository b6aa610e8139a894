"""Which stories, tasks and decisions a caller sees by its roles (CX-10..CX-16).

Pure: a row is looked at as it is recorded now and nothing is remembered, so that a changed role, claim or state counts
at the next look (CX-17).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet.context.row_cut import VisibleRows
from fleet.kernel.ids import Principal
from fleet.policy.roles import Role
from fleet.story.approvals import pending_approvals
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import Decision, StoryState, TaskState

_QA_STATES = frozenset({"pending_qa", "qa_testing", "qa_passed", "qa_failed"})
_WAITS_FOR_QA = frozenset({"pending_qa", "qa_testing"})
_ACROSS_EPICS = frozenset({"ARCHITECTURE", "INFRASTRUCTURE", "SECURITY"})
"""Categories of decisions that an architect sees of stories in epics that are not its own (CX-11)."""


def _all_epics(_: Principal) -> None:
    """Whoever is assigned to no epic by name has all of its projects."""


@dataclass(frozen=True, slots=True)
class RowRules:
    """Several roles see what each of them sees; a role that is not in force sees nothing.

    Args:
        fsm: the lifecycles of a story, whose states have phases.
        roles: in force, by name.
        epics: that a principal is assigned to; None for all of its projects.
    """

    fsm: Callable[[StoryState], FsmConfig]
    roles: Mapping[str, Role] = field(default_factory=dict[str, Role])
    epics: Callable[[Principal], frozenset[str] | None] = _all_epics

    def sees_every_story(self, who: Principal, held: Iterable[str]) -> bool:
        """Whether no story of its projects is hidden: from the po, services, and an architect of all epics."""
        names = frozenset(held)
        if who.startswith("system:") or "po" in names:
            return True
        reach = {role.visibility.stories for role in self._of(names)}
        return "all" in reach or ("assigned_epics" in reach and self.epics(who) is None)

    def sees_epic(self, who: Principal, held: Iterable[str], epic_id: str) -> bool:
        """Whether the epic is shown: to who sees every story, and to the architects that are assigned to it (CX-11)."""
        names = frozenset(held)
        is_bound = any(role.visibility.stories == "assigned_epics" for role in self._of(names))
        return self.sees_every_story(who, names) or (is_bound and self._has_epic(who, epic_id))

    def sees_story(self, who: Principal, held: Iterable[str], state: StoryState) -> bool:
        """Whether the story is a row of the caller.

        Whoever holds the role that a pending approval is addressed to sees the story: a decision needs its subject.
        """
        names = frozenset(held)
        if self.sees_every_story(who, names):
            return True
        if any(approval.request.role in names for approval in pending_approvals(state)):
            return True
        return any(self._has_story(role, who, state) for role in self._of(names))

    def sees_task(self, who: Principal, held: Iterable[str], task: TaskState, *, epic_id: str = "") -> bool:
        """Whether the task, of a story that the caller sees, is a row of the caller.

        Args:
            epic_id: of its story; without it, it is of no epic that is assigned to anybody by name.
        """
        names = frozenset(held)
        return self.sees_every_story(who, names) or any(
            self._has_task(role, who, task, epic_id) for role in self._of(names)
        )

    def sees_decision(self, who: Principal, held: Iterable[str], decision: Decision, *, epic_id: str = "") -> bool:
        """Whether the decision, of a story that the caller sees, is of a category that one of its roles sees."""
        names = frozenset(held)
        if self.sees_every_story(who, names) or decision.proposed.author == who:
            return True
        category = decision.proposed.category
        seen = (self._categories(role, who, epic_id) for role in self._of(names))
        return any(categories == "all" or category in categories for categories in seen)

    def sees_across(self, who: Principal, held: Iterable[str], decision: Decision) -> bool:
        """Whether the decision is seen though its story is hidden: by architects, of what holds for all (CX-11)."""
        is_bound = any(role.visibility.stories == "assigned_epics" for role in self._of(frozenset(held)))
        return is_bound and decision.proposed.category in _ACROSS_EPICS

    def rows_of(self, who: Principal, held: Iterable[str], state: StoryState) -> VisibleRows:
        """Which tasks, of every plan version, and decisions of a story that the caller sees are its rows."""
        names = frozenset(held)
        planned = (task for plan in state.plans.values() for task in plan.proposal.tasks)
        tasks = {task.task_id: TaskState(task=task) for task in planned} | dict(state.tasks)
        shown = {id for id, task in tasks.items() if self.sees_task(who, names, task, epic_id=state.epic_id)}
        shown |= {
            id for id, one in state.decisions.items() if self.sees_decision(who, names, one, epic_id=state.epic_id)
        }
        return VisibleRows(frozenset(shown), frozenset({*tasks, *state.decisions} - shown))

    def _of(self, held: Iterable[str]) -> list[Role]:
        return [self.roles[name] for name in held if name in self.roles]

    def _is_operated(self, state: StoryState) -> bool:
        """Whether it is being operated, whoever has a task in it."""
        lifecycle = self.fsm(state).lifecycles.get(state.lifecycle)
        return lifecycle is not None and lifecycle.is_operated(state.state)

    def _has_epic(self, who: Principal, epic_id: str) -> bool:
        epics = self.epics(who)
        return epics is None or epic_id in epics

    def _categories(self, role: Role, who: Principal, epic_id: str) -> Collection[str] | Literal["all"]:
        is_elsewhere = role.visibility.stories == "assigned_epics" and not self._has_epic(who, epic_id)
        return _ACROSS_EPICS if is_elsewhere else role.visibility.decisions

    def _has_story(self, role: Role, who: Principal, state: StoryState) -> bool:
        match role.visibility.stories:
            case "assigned":
                return any(self._has_task(role, who, task, state.epic_id) for task in state.tasks.values())
            case "phase_test":
                waits = any(task.state in _WAITS_FOR_QA for task in state.tasks.values())
                return waits or self._phase(state) == "TEST"
            case "role_tasks":
                is_operated = role.scope == "operations" and self._is_operated(state)
                return is_operated or any(self._is_of(role, task) for task in state.tasks.values())
            case "assigned_epics":
                return self._has_epic(who, state.epic_id)
            case "all":
                return True

    def _has_task(self, role: Role, who: Principal, task: TaskState, epic_id: str) -> bool:
        if (task.claim is not None and task.claim.principal == who) or task.author == who:
            return True
        match role.visibility.stories:
            case "assigned":
                # A reviewer's claim takes the task from no developer.
                is_taken = task.claim is not None and task.state == "implementing"
                return self._is_of(role, task) and not is_taken
            case "phase_test":
                return task.task.kind == "test" or task.state in _QA_STATES
            case "role_tasks":
                return self._is_of(role, task)
            case "assigned_epics":
                return self._has_epic(who, epic_id)
            case "all":
                return True

    def _is_of(self, role: Role, task: TaskState) -> bool:
        """Whether the task is given to the role. Profiles of it count, and so does the role it is a profile of."""
        given = self.roles.get(task.task.role)
        family = {task.task.role, *(given.lineage if given is not None else ())}
        return bool(family & {role.name, *role.lineage})

    def _phase(self, state: StoryState) -> str | None:
        lifecycle = self.fsm(state).lifecycles.get(state.lifecycle)
        spec = lifecycle.states.get(state.state) if lifecycle is not None else None
        return spec.phase if spec is not None else None
