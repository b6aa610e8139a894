"""What every named query is: parameters with bounds, statements, and how their rows become the answer (GR-98)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fleet.graph.schema import Label

MAX_PAGE = 200
"""Rows of one page."""

NodeId = Annotated[str, Field(min_length=1, max_length=300)]
Millis = Annotated[int, Field(ge=0)]

# Decisions without a time of decision come after all others.
NEVER = 2**53


class Query(BaseModel):
    """Parameters of one named query; every bound is checked before the graph is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rows: ClassVar[tuple[str, ...]] = ()
    """Columns that hold sets, sorted after they are read so that the answer is completely ordered."""

    @property
    def statements(self) -> tuple[str, ...]:
        """Names of what is asked, one after the other."""
        raise NotImplementedError

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The node that must exist; None where the query names none."""
        return None

    @property
    def max_rows(self) -> int:
        """At most so many rows are returned."""
        return MAX_PAGE

    def params(self) -> dict[str, Any]:
        """The parameters as the statements name them."""
        return self.model_dump()

    def shaped(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answer that the rows of all statements are put together to; a query of one statement is its rows."""
        return rows


class Page(Query):
    """A query whose rows are asked for page by page."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE
    skip: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    @property
    def max_rows(self) -> int:
        """The page's size."""
        return self.limit
