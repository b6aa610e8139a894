"""Named queries about who did what when, and which links the record lacks (GR-91, GR-93)."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import Field

from fleet.graph.query import NEVER, Millis, NodeId, Query
from fleet.graph.schema import Label

__all__ = ["ActorActivity", "Orphans"]

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
    """Nodes of a story that lack a link which they must have, by rule and id, with what each lacks (GR-93, RP-21)."""

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
        found = [
            {
                "rule": row["rule"],
                "kind": row["kind"],
                "id": row["id"],
                "missing": sorted(name for name, is_there in row["links"].items() if not is_there),
            }
            for row in rows
        ]
        return sorted((row for row in found if row["missing"]), key=lambda row: (row["rule"], row["id"]))
