"""Lifecycles, gates and the task workflow as data (LC-1, LC-71, LC-100..LC-119)."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fleet.events.values import TaskAction, TaskState
from fleet.kernel.documents import WrongKey, WrongKeys
from fleet.kernel.types import Frozen, Phase, Rigor, RoleName, TaskKind

RIGORS: tuple[Rigor, ...] = ("L0", "L1", "L2", "L3")
GUARD_NAMES = frozenset(
    {
        "all_tasks_done",
        "builds_passing",
        "criteria_shown",
        "deploy_approved",
        "deploy_recorded",
        "design_complete",
        "design_signoff",
        "docs_complete",
        "dor_ok",
        "feedback_given",
        "health_ok",
        "no_open_change_requests",
        "plan_valid",
        "po_approved",
        "qa_signoff",
        "review_signoff",
        "tests_passing",
    }
)

_OPERATIONS = frozenset({"deploy_approved", "deploy_recorded", "health_ok"})

GATE_NAMES = frozenset(
    {
        "accept_warning",
        "approve_deploy",
        "approve_design",
        "approve_plan",
        "approve_scope",
        "council_escalation",
        "docs_ready",
        "lower_rigor",
        "manual_plan",
        "qa_passed",
        "raise_budget",
        "review_approved",
        "task_acceptance",
        "unpark",
        "waive_dimension",
    }
)
"""Gates that the product asks for by name; others are those that moves of a lifecycle name."""

_GUARD_ALIASES = {"all_subtasks_done": "all_tasks_done"}
"""Names that lifecycle files of elsewhere have for guards (LC-66)."""


class StateSpec(Frozen):
    """One state: its phase, or the end."""

    phase: Phase | None = None
    terminal: bool = False


class Transition(Frozen):
    """One row of a lifecycle table; `gate` names the approval that a human gate needs."""

    from_: Annotated[str, Field(alias="from")]
    event: str
    to: str
    guards: tuple[str, ...] = ()
    by: tuple[str, ...]
    kind: Literal["create", "auto", "gate", "loopback"]
    gate: str | None = None
    skips: tuple[str, ...] = ()
    """States of a longer table that this one leaves out here (LC-46); the record of the transition names them."""

    @field_validator("guards")
    @classmethod
    def _by_their_names(cls, guards: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_GUARD_ALIASES.get(name, name) for name in guards)


class Gate(Frozen):
    """Who may approve, about which subject, and for how long (LC-71). No `delegable_up_to` means never."""

    role: RoleName
    actor: Literal["human", "any"]
    subject: Literal["content", "plan", "tree", "docs", "task_tree", "deployment", "report", "object"]
    request_ttl_s: Annotated[int, Field(ge=60)]
    grant_ttl_s: Annotated[int, Field(ge=60)]
    delegable_up_to: Rigor | None = None


class Lifecycle(Frozen):
    """States and transitions of one kind of story; every table is checked whole when it is loaded (LC-1)."""

    initial: str
    states: dict[str, StateSpec]
    transitions: tuple[Transition, ...]
    gates: dict[str, Gate] = {}

    @model_validator(mode="after")
    def _check(self) -> Lifecycle:
        names, problems = set(self.states), list[WrongKey]()
        if self.initial not in names:
            problems.append(WrongKey("initial", f"initial state {self.initial!r} is not a state"))
        for name, spec in self.states.items():
            if not spec.terminal and spec.phase is None:
                problems.append(WrongKey(f"states.{name}", f"state {name!r} has no phase"))
        seen = set[tuple[str, str]]()
        for number, row in enumerate(self.transitions):
            at = f"transitions.{number}"
            lost = [(key, s) for key, s in (("from", row.from_), ("to", row.to)) if s not in names]
            problems += [WrongKey(f"{at}.{key}", f"{row.event}: no state {s!r}") for key, s in lost]
            unknown = [guard for guard in row.guards if guard not in GUARD_NAMES]
            problems += [WrongKey(f"{at}.guards", f"{row.event}: no guard {guard!r}") for guard in unknown]
            if (row.from_, row.event) in seen:
                problems.append(WrongKey(at, f"event {row.event!r} stands twice for state {row.from_!r}"))
            seen.add((row.from_, row.event))
        if not problems:
            problems += self._unreachable()
        if problems:
            raise WrongKeys(problems)
        return self

    def _unreachable(self) -> list[WrongKey]:
        forward = _closure({self.initial}, [(r.from_, r.to) for r in self.transitions])
        ends = {n for n, s in self.states.items() if s.terminal}
        backward = _closure(ends, [(r.to, r.from_) for r in self.transitions])
        stray = [(s, f"state {s!r} is never reached") for s in self.states if s not in forward]
        stray += [(s, f"no terminal state can be reached from {s!r}") for s in self.states if s not in backward]
        return [WrongKey(f"states.{state}", reason) for state, reason in stray]

    @property
    def creation(self) -> Transition | None:
        """The move that a new story makes at once; None where it stays in the first state."""
        return next((row for row in self.legal(self.initial) if row.kind == "create"), None)

    @property
    def deploys(self) -> bool:
        """Whether a story of it is deployed on its way."""
        return any("deploy_recorded" in row.guards for row in self.transitions)

    def is_early(self, state: str) -> bool:
        """Whether the work on a story there has not begun: the first state, and where its creation leads."""
        return state == self.initial or (self.creation is not None and state == self.creation.to)

    def is_operated(self, state: str) -> bool:
        """Whether what the story made is brought to where it runs, or watched there."""
        return any(_OPERATIONS & set(row.guards) for row in self.legal(state))

    def legal(self, state: str) -> tuple[Transition, ...]:
        """The rows whose event may be fired in this state, in table order."""
        return tuple(row for row in self.transitions if row.from_ == state)

    def phase(self, state: str) -> Phase:
        """The phase of a state; a terminal one counts as DOCS, the last phase."""
        return self.states[state].phase or "DOCS"


def _unasked(path: str, gates: Iterable[str], named: Set[str | None]) -> list[WrongKey]:
    unknown = [gate for gate in gates if gate not in GATE_NAMES and gate not in named]
    return [WrongKey(f"{path}.{gate}", "nothing asks for a gate of this name") for gate in unknown]


def _closure(start: set[str], edges: list[tuple[str, str]]) -> set[str]:
    reached = set(start)
    for _ in edges:
        reached |= {b for a, b in edges if a in reached}
    return reached


class TaskTransition(Frozen):
    """One row of the task workflow."""

    from_: Annotated[tuple[TaskState, ...], Field(alias="from")]
    action: TaskAction
    to: TaskState
    by: Literal["system", "assignee", "architect", "qa", "po"]


class StageLimit(Frozen):
    """How long a task may stay in these states, which follow each other (LC-131..LC-135); seconds."""

    states: Annotated[tuple[TaskState, ...], Field(min_length=1)]
    role: str
    """Who is told first when it takes longer."""
    wait_s: Annotated[int, Field(gt=0)] | None = None
    """In the first of the states, until somebody takes the task."""
    sla_s: Annotated[int, Field(gt=0)]


class TaskWorkflow(Frozen):
    """The 15 states of a task (LC-100..LC-117) and which reviews a kind of task needs (LC-119)."""

    initial: TaskState
    terminal: tuple[TaskState, ...]
    transitions: tuple[TaskTransition, ...]
    reviews_by_kind: dict[TaskKind, tuple[Literal["architect", "qa", "po"], ...]]
    claim_ttl_s: dict[TaskState, int]
    limits: tuple[StageLimit, ...] = ()
    task_sla_s: Annotated[int, Field(gt=0)] | None = None
    """From when nothing holds a task back until it is done (LC-136)."""

    @model_validator(mode="after")
    def _check(self) -> TaskWorkflow:
        pairs = [(state, row.action) for row in self.transitions for state in row.from_]
        if len(pairs) != len(set(pairs)):
            raise ValueError("an action stands twice for one task state")
        empty = [kind for kind, reviews in self.reviews_by_kind.items() if not reviews]
        if empty:
            raise ValueError(f"task kinds {empty} have no review by anybody but the author")
        return self

    def claim_s(self, state: str) -> int:
        """Seconds for which whoever works in this state of a task holds it."""
        return next((ttl_s for name, ttl_s in self.claim_ttl_s.items() if name == state), 7200)

    def find(self, state: str, action: str) -> TaskTransition | None:
        """The row for this action in this state, None when it is not legal."""
        return next((r for r in self.transitions if r.action == action and state in r.from_), None)


class LoopLimits(Frozen):
    """How often a story may go round before a person is asked."""

    max_loopbacks: Annotated[int, Field(ge=0)] = 5
    max_rework: Annotated[int, Field(ge=0)] = 3
    expiries_before_park: Annotated[int, Field(ge=1)] = 3
    """Requests in a row that nobody answered until the story is parked (LC-73)."""
    auto_loopback: bool = True


class FsmConfig(Frozen):
    """config/fsm.yaml as a whole."""

    lifecycles: dict[str, Lifecycle]
    gates: dict[str, Gate]
    limits: LoopLimits
    task_workflow: TaskWorkflow

    @model_validator(mode="after")
    def _check(self) -> FsmConfig:
        states = {state for lifecycle in self.lifecycles.values() for state in lifecycle.states}
        named = {row.gate for lifecycle in self.lifecycles.values() for row in lifecycle.transitions}
        problems = _unasked("gates", self.gates, named)
        for name, lifecycle in self.lifecycles.items():
            path, rows = f"lifecycles.{name}", lifecycle.transitions
            problems += _unasked(f"{path}.gates", lifecycle.gates, {row.gate for row in rows})
            for number, row in enumerate(rows):
                at = f"{path}.transitions.{number}"
                if row.gate is not None and row.gate not in self.gates and row.gate not in lifecycle.gates:
                    problems.append(WrongKey(f"{at}.gate", f"event {row.event!r}: no gate {row.gate!r}"))
                lost = [state for state in row.skips if state not in states]
                problems += [WrongKey(f"{at}.skips", f"no lifecycle has a state {state!r}") for state in lost]
        if problems:
            raise WrongKeys(problems)
        return self

    def unknown_roles(self, names: Set[str]) -> dict[str, str]:
        """Roles of gates, moves and limits that are none of these, by the path of the key that names them."""
        named = {f"gates.{name}.role": gate.role for name, gate in self.gates.items()}
        named |= {f"task_workflow.limits.{n}.role": limit.role for n, limit in enumerate(self.task_workflow.limits)}
        for key, lifecycle in self.lifecycles.items():
            named |= {f"lifecycles.{key}.gates.{name}.role": gate.role for name, gate in lifecycle.gates.items()}
            rows = enumerate(lifecycle.transitions)
            named |= {f"lifecycles.{key}.transitions.{n}.by.{i}": r for n, t in rows for i, r in enumerate(t.by)}
        return {path: role for path, role in named.items() if role not in names and role != "system"}

    def gate(self, lifecycle: str, name: str) -> Gate:
        """The gate as this lifecycle has it: its own override first."""
        return self.lifecycles[lifecycle].gates.get(name) or self.gates[name]
