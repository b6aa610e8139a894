"""Wire types of decisions: one with its history, what hangs on it, and what people send to make and settle them."""

from __future__ import annotations

from typing import Literal

from fleet.desk.decisions import DecisionRecord, GraphRows
from fleet.events.decision import DecisionAccepted
from fleet.story.commands.decisions import EvidenceView, LinkView, deciders_of
from serve_apps.wire.planner import DecisionView, decision_view
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at


class SettledView(Wire):
    """How a decision was settled."""

    verdict: Literal["accepted", "rejected"]
    by: str
    as_role: str
    at: str
    said: str | None
    """The note or the reason."""


class SupersededView(Wire):
    """What stands in its place."""

    by_decision_id: str
    by: str | None
    reason: str | None
    at: str


class DecisionPage(Wire):
    """One decision with everything that its story says of it."""

    story_id: str
    decision: DecisionView
    plan_id: str | None
    affects: tuple[str, ...]
    links: tuple[LinkView, ...]
    based_on: tuple[EvidenceView, ...]
    settled: SettledView | None
    superseded: SupersededView | None
    supersedes: tuple[str, ...]
    settled_by_roles: tuple[str, ...]
    """The roles whose word settles a decision of this category."""


class ImpactRow(Wire):
    """One thing that hangs on the decision, and over how many steps."""

    kind: str
    id: str
    distance: int
    title: str | None
    state: str | None


# Source: GR-82.
class Impact(Wire):
    """What hangs on a decision, the nearest first; a run in it would need repeating."""

    decision_id: str
    items: tuple[ImpactRow, ...]
    as_of: int
    """The version of the story that the decision graph held."""


# Source: GR-81.
class CriticalRow(Wire):
    """A decision of the adopted plan, and how much hangs on it."""

    id: str
    title: str | None
    category: str | None
    status: str | None
    dependents: int
    governed_by: int
    affects: int
    degree: int


class CriticalList(Wire):
    """The decisions of the adopted plan, those first that most hangs on."""

    items: tuple[CriticalRow, ...]
    as_of: int


# Source: GR-83.
class Cycle(Wire):
    """Decisions of which each depends on the next, and the last on the first."""

    decisions: tuple[str, ...]
    length: int


class CycleList(Wire):
    """Circles of decisions, the shortest first."""

    items: tuple[Cycle, ...]
    as_of: int


def decision_page(record: DecisionRecord) -> DecisionPage:
    """The wire form of a decision and its history."""
    proposed = record.decision.proposed
    return DecisionPage(
        story_id=record.state.story_id,
        decision=decision_view(record.decision),
        plan_id=proposed.plan_id,
        affects=proposed.affects,
        links=tuple(LinkView(rel=link.rel, decision_id=link.decision_id) for link in proposed.links),
        based_on=tuple(EvidenceView(kind=one.kind, id=one.id) for one in proposed.based_on),
        settled=_settled(record),
        superseded=_superseded(record),
        supersedes=record.supersedes,
        settled_by_roles=deciders_of(proposed.category),
    )


def _settled(record: DecisionRecord) -> SettledView | None:
    if record.settled is None:
        return None
    event, payload = record.settled
    is_yes = isinstance(payload, DecisionAccepted)
    return SettledView(
        verdict="accepted" if is_yes else "rejected",
        by=payload.by,
        as_role=payload.as_role,
        at=at(event.ts_ms),
        said=payload.note if isinstance(payload, DecisionAccepted) else payload.reason,
    )


def _superseded(record: DecisionRecord) -> SupersededView | None:
    if record.superseded is None:
        return None
    event, payload = record.superseded
    return SupersededView(
        by_decision_id=payload.by_decision_id, by=payload.by, reason=payload.reason, at=at(event.ts_ms)
    )


def impact(decision_id: str, rows: GraphRows) -> Impact:
    """The wire form of what hangs on a decision."""
    return Impact(
        decision_id=decision_id, items=tuple(ImpactRow.model_validate(row) for row in rows.rows), as_of=rows.as_of
    )


def critical_list(rows: GraphRows) -> CriticalList:
    """The wire form of the decisions that most hangs on."""
    shown = [{name: row[name] for name in CriticalRow.model_fields} for row in rows.rows]
    return CriticalList(items=tuple(CriticalRow.model_validate(row) for row in shown), as_of=rows.as_of)


def cycle_list(rows: GraphRows) -> CycleList:
    """The wire form of circles of decisions."""
    return CycleList(
        items=tuple(Cycle(decisions=tuple(row["decisions"]), length=row["length"]) for row in rows.rows),
        as_of=rows.as_of,
    )
