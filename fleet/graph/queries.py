"""The named queries: their parameters, bounds and order (GR-80..GR-98). Adapters answer them; nothing else is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fleet.graph.query import NEVER, Millis, NodeId, Page, Query
from fleet.graph.schema import Label
from fleet.graph.story_queries import OpenWork, RehydrationPack, ReportData, TaskBlockers
from fleet.graph.structure import CriticalDecisions, DecisionCycles, PathHistory, PlanLayerRows, SimilarDecisions
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput, NotFound
from fleet.kernel.types import DecisionStatus

_MAX_DAYS, _MAX_ORPHANS, _MAX_LOOKED_AT = 400, 500, 5_000
_FIRST_DAY = date(1970, 1, 1).toordinal()
_KINDS = ("decisions", "approvals", "reviews", "runs")

Row = dict[str, Any]


class ActorActivity(Query):
    """How many decisions, approvals, reviews and runs of a principal there are, by day in UTC (GR-91).

    `from_` and `to` bound the time, in UTC milliseconds, both inclusive; at most 400 days with anything are told.
    """

    actor_id: NodeId
    from_: Annotated[Millis, Field(alias="from")] = 0
    to: Millis = NEVER

    @property
    def statements(self) -> tuple[str, ...]:
        """One for each kind."""
        return tuple(f"actor_{kind}" for kind in _KINDS)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The actor."""
        return Label.ACTOR, self.actor_id

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return _MAX_DAYS

    def params(self) -> Row:
        """With the bound of what is looked at."""
        return {**self.model_dump(by_alias=True), "limit": _MAX_DAYS}

    def shaped(self, rows: list[Row]) -> list[Row]:
        """One row for each day with anything."""
        days: dict[int, Row] = {}
        for row in rows:
            days.setdefault(row["day"], dict.fromkeys(_KINDS, 0))[row["part"]] = row["number"]
        return [{"day": date.fromordinal(_FIRST_DAY + day).isoformat(), **days[day]} for day in sorted(days)]


class Orphans(Query):
    """Nodes of a story that lack a link which they must have (GR-93, RP-21). They are sorted by rule and id, with what
    each lacks.
    """

    story_id: NodeId
    limit: Annotated[int, Field(ge=1, le=_MAX_ORPHANS)] = _MAX_ORPHANS

    @property
    def statements(self) -> tuple[str, ...]:
        """One for each rule."""
        kinds = ("criteria", "tasks", "decisions", "councils", "runs", "approvals", "deployments")
        return tuple(f"orphan_{kind}" for kind in kinds)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story."""
        return Label.STORY, self.story_id

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit

    def params(self) -> Row:
        """With the bound of what is looked at."""
        return {"story_id": self.story_id, "limit": _MAX_LOOKED_AT}

    def shaped(self, rows: list[Row]) -> list[Row]:
        """Those that lack something."""
        lacking = [
            {
                "rule": row["rule"],
                "kind": row["kind"],
                "id": row["id"],
                "missing": sorted(name for name, is_there in row["links"].items() if not is_there),
            }
            for row in rows
        ]
        return sorted((row for row in lacking if row["missing"]), key=lambda row: (row["rule"], row["id"]))


MAX_IMPACT = 500
"""Rows of a decision's impact (GR-82)."""


class DecisionTrail(Page):
    """Who decided what, when, why and on which evidence, by (decided_at, id). Of a story, a task or a path (GR-80).

    `from_` and `to` bound the time of the decision, in UTC milliseconds, both inclusive; they leave out what is not
    decided yet.
    """

    rows = ("decided_by", "evidence", "supersedes", "tasks")

    story_id: NodeId | None = None
    task_id: NodeId | None = None
    path: NodeId | None = None
    status: DecisionStatus | None = None
    from_: Annotated[Millis | None, Field(alias="from")] = None
    to: Millis | None = None

    @model_validator(mode="after")
    def _names_one_subject(self) -> Self:
        if sum(x is not None for x in (self.story_id, self.task_id, self.path)) != 1:
            raise ValueError("give exactly one of story_id, task_id and path")
        return self

    @property
    def statements(self) -> tuple[str, ...]:
        """One statement for each kind of subject."""
        if self.story_id is not None:
            return ("decision_trail_of_story",)
        return ("decision_trail_of_task",) if self.task_id is not None else ("decision_trail_of_path",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story or the task; a path that nobody touched has an empty trail."""
        if self.story_id is not None:
            return Label.STORY, self.story_id
        return None if self.task_id is None else (Label.TASK, self.task_id)

    def params(self) -> dict[str, Any]:
        """With the time that undecided ones are sorted by."""
        return {**self.model_dump(by_alias=True), "never": NEVER}


class WhoApproved(Page):
    """The approvals of a story, by (requested_at, id) (GR-88)."""

    rows = ("decided_by",)

    story_id: NodeId
    gate: NodeId | None = None

    @property
    def statements(self) -> tuple[str, ...]:
        """One."""
        return ("who_approved",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story."""
        return Label.STORY, self.story_id


class CouncilOutcome(Query):
    """One row: what the council considered, how it voted and what came of it (GR-89).

    `tally`, `counterfactuals` and each ballot's `votes` are JSON text.
    """

    rows = ("candidates", "ballots", "about", "decisions")

    council_id: NodeId

    @property
    def statements(self) -> tuple[str, ...]:
        """One."""
        return ("council_record",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The council."""
        return Label.COUNCIL, self.council_id


class UnansweredQuestions(Page):
    """Open questions, blocking ones first, then by (asked_at, id) (GR-87). `now_ms` is what age is counted from."""

    rows = ("asked_by", "blocking")

    now_ms: Millis
    story_id: NodeId | None = None
    severity: Literal["normal", "blocking"] | None = None
    older_than_s: Annotated[int, Field(ge=0, le=10**9)] | None = None

    @property
    def statements(self) -> tuple[str, ...]:
        """One statement for a story, one for all."""
        return ("unanswered_questions_of_story",) if self.story_id is not None else ("unanswered_questions",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story, where one is named."""
        return None if self.story_id is None else (Label.STORY, self.story_id)

    def params(self) -> dict[str, Any]:
        """With the latest time at which a question may have been asked."""
        before = self.now_ms - (self.older_than_s or 0) * 1000
        return {**self.model_dump(), "asked_before": before if self.older_than_s is not None else NEVER}


class DecisionImpact(Query):
    """What hangs on a decision, by (distance, id) (GR-82).

    Dependent decisions within `depth` steps; the tasks that these and the decision itself affect, one step further;
    files that those tasks touched, criteria that they cover and runs that belong to them, two steps further.
    """

    decision_id: NodeId
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    limit: Annotated[int, Field(ge=1, le=MAX_IMPACT)] = MAX_IMPACT

    @property
    def statements(self) -> tuple[str, ...]:
        """One for each ring."""
        return ("decision_impact_decisions", "decision_impact_tasks", "decision_impact_around")

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The decision."""
        return Label.DECISION, self.decision_id

    @property
    def max_rows(self) -> int:
        """The bound of the whole answer."""
        return self.limit

    def shaped(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All rings in one order."""
        return sorted(rows, key=lambda row: (row["distance"], row["id"], row["kind"]))


QUERIES: Mapping[str, type[Query]] = MappingProxyType(
    {
        "decision_trail": DecisionTrail,
        "decision_impact": DecisionImpact,
        "unanswered_questions": UnansweredQuestions,
        "who_approved": WhoApproved,
        "council_record": CouncilOutcome,
        "critical_decisions": CriticalDecisions,
        "decision_cycles": DecisionCycles,
        "plan_layers": PlanLayerRows,
        "path_history": PathHistory,
        "similar_decisions": SimilarDecisions,
        "rehydration_pack": RehydrationPack,
        "report_data": ReportData,
        "task_blockers": TaskBlockers,
        "actor_activity": ActorActivity,
        "orphans": Orphans,
        "open_work": OpenWork,
    }
)
"""Every named query that the graph answers."""


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """A checked question: the statements to run, and how their rows become the answer."""

    name: str
    query: Query

    @property
    def statements(self) -> tuple[str, ...]:
        """Names of the statements, whose rows are put together."""
        return self.query.statements

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of every statement."""
        return self.query.params()

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The node that must exist."""
        return self.query.subject

    def not_found(self) -> NotFound:
        """The error for a subject that does not exist."""
        assert self.subject is not None
        label, node_id = self.subject
        return NotFound(
            f"the graph holds no {label} {node_id!r}: check the id, or wait until it is projected", id=node_id
        )

    def answer(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, completely ordered and bounded."""
        answered = [{name: self._cell(name, value) for name, value in row.items()} for row in rows]
        return self.query.shaped(answered)[: self.query.max_rows]

    def _cell(self, name: str, value: Any) -> Any:
        return sorted(value, key=canonical_json) if name in self.query.rows else value


def plan_query(name: str, params: Mapping[str, Any]) -> QueryPlan:
    """The question behind a name and its parameters.

    Raises:
        InvalidInput: no query has this name, or parameters are missing, unknown or out of their bounds.
    """
    cls = QUERIES.get(name)
    if cls is None:
        allowed = sorted(QUERIES)
        raise InvalidInput(f"no named query {name[:100]!r}: choose one of {', '.join(allowed)}", allowed=allowed)
    try:
        return QueryPlan(name, cls.model_validate(dict(params)))
    except ValidationError as error:
        problems = [f"{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise InvalidInput(f"query {name}: {'; '.join(problems)}", problems=problems) from error
