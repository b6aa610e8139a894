"""From the fold of a story to the items of each scope. Pure; no random id, time, version or machine path in any text.

What passed a gate or a vote (criteria, accepted decisions, the adopted plan) is told as instruction, each on one line.
What did not (feedback, findings, questions, summaries) is fenced as data (CX-27).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fleet.context.budget import estimate_tokens
from fleet.context.item import MUST_KEEP, Item, fence, one_line
from fleet.context.scope import Scope
from fleet.context.summary_text import outline_of
from fleet.context.view import StoryView
from fleet.story.state import Decision, StoryState, TaskState

_FALLBACK_DECISIONS = 5


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads the pack: a role or profile and the base role behind it."""

    role: str
    base: str
    summary_tokens: int = 1_200
    """The most that is shown of a summary."""
    count: Callable[[str], int] = estimate_tokens
    """Tokens of a text, as the model that reads counts them."""

    def owns(self, task: TaskState) -> bool:
        """Whether the task is one of this role."""
        return task.task.role in (self.role, self.base)


def section(scope: Scope, view: StoryView, reader: Reader) -> tuple[Item, ...]:
    """The items of one scope of CX-1."""
    return tuple(_SECTIONS[scope](view, reader))


def tasks_of(state: StoryState) -> tuple[TaskState, ...]:
    """The tasks of the adopted plan; without one those of the latest proposed plan (CX-42), by priority."""
    if state.plan_id is not None:
        tasks = [t for t in state.tasks.values() if t.task.plan_id == state.plan_id]
    else:
        proposed = [p for p in state.plans.values() if p.status == "PROPOSED"]
        tasks = [TaskState(task=t) for t in proposed[-1].proposal.tasks] if proposed else []
    return tuple(sorted(tasks, key=lambda t: t.task.priority))


def _case_header(view: StoryView, _: Reader) -> Iterable[Item]:
    content, state = view.state.content, view.state
    yield _case("Story", "title", one_line(content.title))
    if content.description.strip():
        yield _case("Story", "description", content.description.strip(), level=MUST_KEEP + 1)
    for criterion in content.acceptance_criteria:
        yield _case("Acceptance criteria", criterion.ac_id, f"- {criterion.ac_id}: {one_line(criterion.text)}")
    for name, value in sorted(content.constraints.items()):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        yield _case("Constraints", name, f"- {name}: {one_line(text)}")
    facts = f"State {state.state}, rigor {state.rigor}, language {state.language}"
    tags = f", tags {', '.join(content.tags)}" if content.tags else ""
    yield _case("Where the story stands", "facts", facts + tags, level=4)


def _case(heading: str, id: str, text: str, *, level: int = MUST_KEEP) -> Item:
    return Item(scope="CASE_HEADER", level=level, id=id, heading=heading, text=text)


def _plan_header(view: StoryView, _: Reader) -> Iterable[Item]:
    state = view.state
    proposed = [p for p in state.plans.values() if p.status == "PROPOSED"]
    plan = state.plan or (proposed[-1] if proposed else None)
    if plan is None:
        return
    counts: dict[str, int] = {}
    for task in tasks_of(state):
        counts[task.state] = counts.get(task.state, 0) + 1
    by_state = ", ".join(f"{n} {name}" for name, n in counts.items())
    status = "adopted" if plan.status == "ADOPTED" else "only proposed"
    text = f"{one_line(plan.proposal.rationale)}\nStatus: {status}. Tasks: {by_state}."
    yield Item(scope="PLAN_HEADER", level=4, id=plan.proposal.plan_id, heading="Plan", text=text)


def live_decisions(state: StoryState) -> list[Decision]:
    """Those that hold or are proposed, in the order in which they were."""
    return [d for d in state.decisions.values() if d.status in ("ACCEPTED", "PROPOSED")]


def relevant_decisions(state: StoryState, reader: Reader) -> list[Decision]:
    """Those that affect a task of the reader's role; if there are none, the first five."""
    mine = {t.task.task_id for t in tasks_of(state) if reader.owns(t)}
    live = live_decisions(state)
    affecting = [d for d in live if mine.intersection(d.proposed.affects)]
    return affecting or live[:_FALLBACK_DECISIONS]


def _decision_item(scope: Scope, decision: Decision, *, relevant: bool, full: bool) -> Item:
    proposed = decision.proposed
    text = f"- {one_line(proposed.title)} ({decision.status})"
    if full:
        text = f"- {one_line(proposed.title)} ({proposed.category}, {decision.status}): {one_line(proposed.rationale)}"
    return Item(scope=scope, level=4 if relevant else 7, id=proposed.decision_id, heading="Decisions", text=text)


def _decisions_global(view: StoryView, reader: Reader) -> Iterable[Item]:
    return _decisions(view, reader, "DECISIONS_GLOBAL", full=True)


def _decisions_global_min(view: StoryView, reader: Reader) -> Iterable[Item]:
    return _decisions(view, reader, "DECISIONS_GLOBAL_MIN", full=False)


def _decisions(view: StoryView, reader: Reader, scope: Scope, *, full: bool) -> list[Item]:
    relevant = {d.proposed.decision_id for d in relevant_decisions(view.state, reader)}
    return [
        _decision_item(scope, d, relevant=d.proposed.decision_id in relevant, full=full)
        for d in live_decisions(view.state)
    ]


def _decisions_role(view: StoryView, reader: Reader) -> Iterable[Item]:
    scope: Scope = "DECISIONS_RELEVANT_ROLE"
    return [_decision_item(scope, d, relevant=True, full=True) for d in relevant_decisions(view.state, reader)]


def _edges(scope: Scope, state: StoryState, touching: Iterable[Decision]) -> Iterable[Item]:
    titles = {d.proposed.decision_id: one_line(d.proposed.title) for d in live_decisions(state)}
    touching_ids = {d.proposed.decision_id for d in touching}
    for decision in live_decisions(state):
        source = decision.proposed.decision_id
        for link in decision.proposed.links:
            if link.decision_id in titles and touching_ids.intersection((source, link.decision_id)):
                text = f"- {titles[source]} {link.rel} {titles[link.decision_id]}"
                id = f"{source} {link.rel} {link.decision_id}"
                yield Item(scope=scope, level=6, id=id, heading="Dependencies", text=text)


def _deps_decisions(view: StoryView, _: Reader) -> Iterable[Item]:
    return _edges("DEPS_DECISIONS", view.state, live_decisions(view.state))


def _deps_relevant(view: StoryView, reader: Reader) -> Iterable[Item]:
    yield from _edges("DEPS_RELEVANT", view.state, relevant_decisions(view.state, reader))
    tasks = tasks_of(view.state)
    titles = {t.task.task_id: one_line(t.task.title) for t in tasks}
    for task in tasks:
        for needed in task.task.depends_on:
            if reader.owns(task) and needed in titles:
                text = f"- Task '{titles[task.task.task_id]}' needs task '{titles[needed]}'"
                id = f"{task.task.task_id} needs {needed}"
                yield Item(scope="DEPS_RELEVANT", level=6, id=id, heading="Dependencies", text=text)


def task_text(state: TaskState, *, full: bool, with_role: bool = True) -> str:
    """One task on one line: title, role and state, and in full what is to be done, where, and for which criteria."""
    task = state.task
    facts = [task.kind] if full else []
    head = f"- {one_line(task.title)} ({', '.join([*([task.role] if with_role else []), *facts, state.state])})"
    if not full:
        return head
    serves = (
        [f"serves {', '.join(r for r in task.acceptance_refs if r.startswith('ac-'))}"] if task.acceptance_refs else []
    )
    paths = [f"changes {', '.join(task.paths)}"] if task.paths else []
    return "; ".join([f"{head}: {one_line(task.description)}", *serves, *paths])


def _tasks(scope: Scope, *, full: bool, own_only: bool) -> Callable[[StoryView, Reader], Iterable[Item]]:
    def cut(view: StoryView, reader: Reader) -> Iterable[Item]:
        for task in tasks_of(view.state):
            own = reader.owns(task)
            if own or not own_only:
                text = task_text(task, full=full, with_role=not own_only)
                yield Item(scope=scope, level=5 if own else 7, id=task.task.task_id, heading="Tasks", text=text)

    return cut


def _milestones(view: StoryView, _: Reader) -> Iterable[Item]:
    for m in view.milestones:
        # The newest are kept first: a lower rank stays longer.
        yield Item(
            scope="MILESTONES", level=8, id=f"v{m.version}", heading="Milestones", text=f"- {m.text}", rank=-m.version
        )


def _summary(view: StoryView, reader: Reader) -> Iterable[Item]:
    """The summary of the role's own history, which holds nothing that it has not seen; people see the newest one."""
    kept = view.state.summaries
    newest = max(kept, key=lambda role: kept[role].version, default="")
    text = view.summaries.get(newest if reader.base == "po" else reader.base) or view.summaries.get("")
    if text:
        shown = fence(outline_of(text, tokens=reader.summary_tokens, count=reader.count), origin="an earlier summary")
        yield Item(scope="SUMMARY_LAST", level=9, id="summary", heading="Summary", text=shown)


_SECTIONS: Mapping[Scope, Callable[[StoryView, Reader], Iterable[Item]]] = {
    "CASE_HEADER": _case_header,
    "PLAN_HEADER": _plan_header,
    "DECISIONS_GLOBAL": _decisions_global,
    "DECISIONS_GLOBAL_MIN": _decisions_global_min,
    "DECISIONS_RELEVANT_ROLE": _decisions_role,
    "DEPS_DECISIONS": _deps_decisions,
    "DEPS_RELEVANT": _deps_relevant,
    "SUBTASKS_ALL": _tasks("SUBTASKS_ALL", full=True, own_only=False),
    "SUBTASKS_ALL_MIN": _tasks("SUBTASKS_ALL_MIN", full=False, own_only=False),
    "SUBTASKS_ROLE": _tasks("SUBTASKS_ROLE", full=True, own_only=True),
    "SUBTASKS_ROLE_MIN": _tasks("SUBTASKS_ROLE_MIN", full=False, own_only=True),
    "MILESTONES": _milestones,
    "SUMMARY_LAST": _summary,
}
