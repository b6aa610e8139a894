"""Wire types of what people send to change a story."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from serve_apps.wire.story import Wire


class CriterionText(Wire):
    """A criterion in an edit; with `ac_id` it is the one that exists, otherwise a new one."""

    ac_id: Annotated[str | None, Field(max_length=80)] = None
    text: Annotated[str, Field(min_length=1, max_length=2000)]


# Source: AP-54.
class EditRequest(Wire):
    """New values of a story's fields; those that are left out stay."""

    title: Annotated[str | None, Field(max_length=200)] = None
    description: Annotated[str | None, Field(max_length=20_000)] = None
    acceptance_criteria: Annotated[tuple[CriterionText, ...] | None, Field(max_length=50)] = None
    constraints: dict[str, Any] | None = None
    tags: Annotated[tuple[str, ...] | None, Field(max_length=20)] = None
    reason: Annotated[str | None, Field(max_length=4000)] = None
