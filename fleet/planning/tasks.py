"""Derived tasks: every problem is named, nothing is clamped, rounded or dropped (PL-13, PL-20..PL-22)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeGuard, get_args

from fleet.kernel.ids import EntityId
from fleet.kernel.types import Complexity, Frozen, TaskKind
from fleet.planning.coach import Problem, ProblemCode
from fleet.planning.graph import MAX_GLOB, find_cycle, is_repository_glob, reaches
from fleet.planning.planning_config import Bounds, DerivationConfig, PlanningConfig

TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
"""PL-3."""

_KEYWORD = re.compile(r"[^\W_][\w-]*")
_SCHEMA_TITLE, _SCHEMA_DESCRIPTION = 80, 600
_FIELDS = (
    "title",
    "description",
    "role",
    "kind",
    "estimated_hours",
    "priority",
    "keywords",
    "depends_on",
    "acceptance_refs",
    "paths",
)


class DerivedTask(Frozen):
    """One valid task of an answer; `depends_on` are indexes into the same answer, from 0."""

    title: str
    description: str
    role: str
    kind: TaskKind
    estimated_hours: int
    priority: int
    keywords: tuple[str, ...]
    depends_on: tuple[int, ...]
    acceptance_refs: tuple[EntityId, ...]
    paths: tuple[str, ...]


class DerivedDependency(NamedTuple):
    """The task at index `task` needs the one at `depends_on`; `inferred` when shared keywords say so (PL-22)."""

    task: int
    depends_on: int
    inferred: bool = False


class DerivedPlan(Frozen):
    """A valid plan: its tasks in the order of the answer and all dependencies, the declared ones first."""

    tasks: tuple[DerivedTask, ...]
    dependencies: tuple[DerivedDependency, ...]
    left_out: tuple[DerivedDependency, ...]
    """Inferred dependencies that would close a cycle."""


class _Rules(NamedTuple):
    acceptance_ids: tuple[str, ...]
    decision_ids: frozenset[str]
    roles: tuple[str, ...]
    bounds: DerivationConfig
    size: int
    """Number of tasks in the answer."""


def validate_derivation(
    data: Mapping[str, Any],
    *,
    acceptance_ids: Sequence[str],
    decision_ids: Collection[str],
    assignable_roles: Sequence[str],
    config: PlanningConfig,
) -> list[Problem] | DerivedPlan:
    """The plan of an answer `{"tasks": [...]}`, or all of its problems (PL-20, PL-21).

    Args:
        acceptance_ids: the criteria of this story; each must be covered (PL-13).
        decision_ids: decisions that a task may trace to instead.
        assignable_roles: roles with `assignable: true`.
    """
    listed = data.get("tasks")
    if not _is_list(listed):
        return [Problem(code="task_count", message='the answer needs a list "tasks"')]
    bounds = config.derivation
    rules = _Rules(tuple(acceptance_ids), frozenset(decision_ids), tuple(assignable_roles), bounds, len(listed))
    problems = [
        Problem(code="reply", message=f"the answer has an unknown field {name!r}")
        for name in sorted(map(str, data.keys() - {"tasks"}))
    ]
    if len(listed) not in bounds.tasks:
        problems.append(Problem(code="task_count", message=f"{len(listed)} tasks; {bounds.tasks} are allowed"))
    for index, task in enumerate(listed):
        problems += _task_problems(index, task, rules)
    problems += _whole_problems([t if _is_object(t) else {} for t in listed], rules)
    return problems or _plan(tuple(_task(t) for t in listed), bounds.shared_keywords)


def field_problems(fields: Mapping[str, Any], config: PlanningConfig) -> list[Problem]:
    """What is wrong with new values of a task's estimate, priority or keywords; others are passed over (PL-20)."""
    rules = _Rules((), frozenset(), (), config.derivation, 1)
    checks = {"estimated_hours": _hours, "priority": _priority, "keywords": _keywords}
    asked = [checks[name] for name in fields if name in checks]
    return [
        Problem(code=code, message=reason)
        for code, check in _CHECKS.items()
        if check in asked and (reason := check(dict(fields), 0, rules))
    ]


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_int(value: object, bounds: Bounds) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in bounds


def _texts(value: object) -> list[str] | None:
    """The list when it holds only texts, each once."""
    if not _is_list(value) or not all(isinstance(v, str) for v in value) or len(set(value)) != len(value):
        return None
    return value


def _task(raw: Mapping[str, Any]) -> DerivedTask:
    return DerivedTask.model_validate({"depends_on": (), "paths": (), **raw})


def complexity_of(tasks: int) -> Complexity:
    """How complex a plan with so many tasks is taken to be."""
    return "LOW" if tasks < 3 else "MEDIUM" if tasks < 6 else "HIGH"


def _task_problems(index: int, task: object, rules: _Rules) -> Iterator[Problem]:
    if not _is_object(task):
        yield Problem(code="reply", message=f"task {index} is no object", task_index=index)
        return
    for name in sorted(map(str, task.keys() - set(_FIELDS))):
        yield Problem(code="reply", message=f"task {index} has an unknown field {name!r}", task_index=index)
    for code, check in _CHECKS.items():
        if reason := check(task, index, rules):
            yield Problem(code=code, message=f"task {index}: {reason}", task_index=index)


def _length_problem(name: str, value: object, bounds: Bounds) -> str | None:
    if isinstance(value, str) and value.strip() and len(value) in bounds:
        return None
    shown = f"has {len(value)} characters" if isinstance(value, str) else "is missing or no text"
    return f"{name} {shown}; {bounds} characters are allowed"


def _title(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    return _length_problem("title", task.get("title"), rules.bounds.title_chars)


def _description(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    return _length_problem("description", task.get("description"), rules.bounds.description_chars)


def _role(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    role = task.get("role")
    return None if role in rules.roles else f"role {role!r} is not one of {', '.join(rules.roles)}"


def _kind(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    kind = task.get("kind")
    return None if kind in TASK_KINDS else f"kind {kind!r} is not one of {', '.join(TASK_KINDS)}"


def _hours(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    value, bounds = task.get("estimated_hours"), rules.bounds.estimated_hours
    return None if _is_int(value, bounds) else f"estimated_hours {value!r} is no whole number {bounds}"


def _priority(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    value, bounds = task.get("priority"), rules.bounds.priority
    return None if _is_int(value, bounds) else f"priority {value!r} is no whole number {bounds}"


def _keywords(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    words, bounds = _texts(task.get("keywords")), rules.bounds
    if words is None or len(words) not in bounds.keywords:
        return f"keywords must be {bounds.keywords} different words"
    bad = [w for w in words if len(w) not in bounds.keyword_chars or w != w.lower() or not _KEYWORD.fullmatch(w)]
    return f"keywords {bad} must be lower-case words of {bounds.keyword_chars} characters" if bad else None


def _dependencies(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    value: object = task.get("depends_on", [])
    if not _is_list(value):
        return "depends_on must be a list of task indexes"
    bad = [v for v in value if isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < rules.size or v == index]
    if bad or len(set(value)) != len(value):
        return f"depends_on {value} must hold indexes of other tasks, 0..{rules.size - 1}, each once"
    return None


def _trace(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    refs = _texts(task.get("acceptance_refs"))
    if not refs:
        return "acceptance_refs must name at least one acceptance criterion or decision, each once"
    unknown = [r for r in refs if r not in rules.acceptance_ids and r not in rules.decision_ids]
    return f"acceptance_refs {unknown} are no criteria of this story" if unknown else None


def _paths(task: dict[str, Any], index: int, rules: _Rules) -> str | None:
    globs, bounds = _texts(task.get("paths", [])), rules.bounds.paths
    if globs is None or len(globs) not in bounds:
        return f"paths must be a list of {bounds} different globs"
    bad = [g for g in globs if not is_repository_glob(g)]
    return f"paths {bad} must be relative to the repository, without '..'" if bad else None


_CHECKS: dict[ProblemCode, Callable[[dict[str, Any], int, _Rules], str | None]] = {
    "task_title": _title,
    "task_description": _description,
    "task_role": _role,
    "task_kind": _kind,
    "task_hours": _hours,
    "task_priority": _priority,
    "task_keywords": _keywords,
    "task_dependency": _dependencies,
    "task_trace": _trace,
    "task_paths": _paths,
}


def _whole_problems(tasks: Sequence[dict[str, Any]], rules: _Rules) -> Iterator[Problem]:
    """What only all tasks together show; fields that are wrong by themselves are passed over here."""
    seen: dict[str, int] = {}
    for index, task in enumerate(tasks):
        title = task.get("title")
        if isinstance(title, str) and title.strip() and seen.setdefault(title.strip().casefold(), index) != index:
            yield Problem(code="task_title", message=f"task {index}: another task has this title", task_index=index)
    named = {ref for task in tasks for ref in _texts(task.get("acceptance_refs")) or []}
    for ac_id in rules.acceptance_ids:
        if ac_id not in named:
            yield Problem(code="ac_uncovered", message=f"no task serves acceptance criterion {ac_id}", ids=(ac_id,))
    needs = {i: _usable_needs(i, task, len(tasks)) for i, task in enumerate(tasks)}
    if cycle := find_cycle(list(needs), needs):
        path = " -> ".join(map(str, (*cycle, cycle[0])))
        message = f"the dependencies form a cycle: {path}"
        yield Problem(code="plan_cycle", message=message, ids=tuple(map(str, cycle)))


def _usable_needs(index: int, task: Mapping[str, Any], count: int) -> set[int]:
    value: object = task.get("depends_on", [])
    if not _is_list(value):
        return set()
    numbers = {v for v in value if isinstance(v, int) and not isinstance(v, bool)}
    return {n for n in numbers if 0 <= n < count and n != index}


def _plan(tasks: tuple[DerivedTask, ...], shared_keywords: int) -> DerivedPlan:
    """The tasks with the dependencies that shared keywords imply (PL-22)."""
    declared = {i: set(t.depends_on) for i, t in enumerate(tasks)}
    edges = [DerivedDependency(i, n) for i, t in enumerate(tasks) for n in t.depends_on]
    left_out: list[DerivedDependency] = []
    needs = {i: set(n) for i, n in declared.items()}
    order = sorted(range(len(tasks)), key=lambda i: (tasks[i].priority, i))
    for earlier, later in combinations(order, 2):
        shared = set(tasks[earlier].keywords) & set(tasks[later].keywords)
        related = reaches(earlier, later, declared) or reaches(later, earlier, declared)
        if len(shared) < shared_keywords or related:
            continue
        edge = DerivedDependency(later, earlier, inferred=True)
        if reaches(earlier, later, needs):
            left_out.append(edge)
        else:
            needs[later].add(earlier)
            edges.append(edge)
    return DerivedPlan(tasks=tasks, dependencies=tuple(edges), left_out=tuple(left_out))


def derivation_schema(
    acceptance_ids: Sequence[str], assignable_roles: Sequence[str], config: PlanningConfig
) -> dict[str, Any]:
    """A small JSON schema that constrains a planner's answer; `validate_derivation` has the last word.

    It is stricter than the rules on lengths, because engines unroll a bound into a grammar of that size.
    """
    bounds = config.derivation
    keyword = f"^[a-z][a-z0-9-]{{{max(bounds.keyword_chars.min - 1, 0)},{bounds.keyword_chars.max - 1}}}$"
    reference: dict[str, Any] = (
        {"enum": list(acceptance_ids)} if acceptance_ids else {"type": "string", "maxLength": 80}
    )
    last = bounds.tasks.max - 1
    properties: dict[str, Any] = {
        "title": _text(bounds.title_chars, _SCHEMA_TITLE),
        "description": _text(bounds.description_chars, _SCHEMA_DESCRIPTION),
        "role": {"enum": list(assignable_roles)},
        "kind": {"enum": list(TASK_KINDS)},
        "estimated_hours": _integer(bounds.estimated_hours),
        "priority": _integer(bounds.priority),
        "keywords": _array({"type": "string", "pattern": keyword}, bounds.keywords),
        "depends_on": _array({"type": "integer", "minimum": 0, "maximum": last}, Bounds(min=0, max=max(last, 1))),
        "acceptance_refs": _array(reference, Bounds(min=1, max=max(len(acceptance_ids), 1))),
        "paths": _array({"type": "string", "minLength": 1, "maxLength": MAX_GLOB}, bounds.paths),
    }
    return _object({"tasks": _array(_object(properties), bounds.tasks)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(items: dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": bounds.min, "maxItems": bounds.max}


def _text(bounds: Bounds, most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": bounds.min, "maxLength": min(bounds.max, most)}


def _integer(bounds: Bounds) -> dict[str, Any]:
    return {"type": "integer", "minimum": bounds.min, "maximum": bounds.max}
