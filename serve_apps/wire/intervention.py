"""Wire types of what people send to change a story."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.kernel.types import QuestionKind, Reason
from serve_apps.wire.story import Wire


# Source: AP-58.
class RigorRequest(Wire):
    """Work at another rigor level."""

    rigor: Annotated[str, Field(min_length=2, max_length=20)]
    reason: Reason


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


# Source: AP-73.
class QuestionRequest(Wire):
    """A question about a story."""

    text: Annotated[str, Field(min_length=1, max_length=4000)]
    severity: Literal["normal", "blocking"] = "normal"
    kind: QuestionKind = "question"


class AnswerRequest(Wire):
    """The answer to a question."""

    answer: Annotated[str, Field(min_length=1, max_length=4000)]
