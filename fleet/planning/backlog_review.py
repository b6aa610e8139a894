"""The backlog review: councils look at stories before work starts, and a product owner decides (PL-60..PL-70)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fleet.kernel.errors import InvalidInput, InvalidTransition
from fleet.planning.planning_config import Bounds, CeremonyConfig, CeremonyTransition
from fleet.planning.project_state import Ceremony


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class PlanOutlineTask(_Part):
    """One task that a council would plan."""

    title: Annotated[str, Field(min_length=1, max_length=80)]
    role: Annotated[str, Field(min_length=1, max_length=40)]
    estimated_hours: Annotated[int, Field(ge=1)] | None = None
    """None in reviews that were stored before councils were asked for it."""


# Source: PL-67.
class BacklogReview(_Part):
    """What one council says of one story; `points` is its first estimate."""

    feedback: Annotated[str, Field(min_length=1, max_length=1000)]
    risks: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=6)]
    questions: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=6)]
    plan: Annotated[tuple[PlanOutlineTask, ...], Field(max_length=8)]
    points: int


def review_unit(ceremony_id: str, story_id: str, role: str) -> str:
    """The id of one review: asked for however often, it is one (PL-67)."""
    return f"ceremony-{ceremony_id}:story-{story_id}:role-{role}"


def review_form(scale: Sequence[int], hours: Bounds) -> dict[str, Any]:
    """The form of a council's reply; `hours` are those that one task may take."""
    line = {"type": "string", "minLength": 1, "maxLength": 300}
    task = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 80},
            "role": {"type": "string", "minLength": 1, "maxLength": 40},
            "estimated_hours": {"type": "integer", "minimum": hours.min, "maximum": hours.max},
        },
        "required": ["title", "role", "estimated_hours"],
        "additionalProperties": False,
    }
    properties: dict[str, Any] = {
        "feedback": {"type": "string", "minLength": 1, "maxLength": 1000},
        "risks": {"type": "array", "maxItems": 6, "items": line},
        "questions": {"type": "array", "maxItems": 6, "items": line},
        "plan": {"type": "array", "maxItems": 8, "items": task},
        "points": {"type": "integer", "enum": list(scale)},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def movers(config: CeremonyConfig, trigger: str) -> tuple[str, ...]:
    """The roles that fire this trigger in some status (PL-71)."""
    return tuple(dict.fromkeys(role for row in config.transitions if row.trigger == trigger for role in row.roles))


def next_move(config: CeremonyConfig, ceremony: Ceremony, trigger: str) -> CeremonyTransition:
    """The row of this trigger; InvalidTransition where the table of the ceremony has none now (PL-60..PL-66)."""
    rows = [t for t in config.transitions if ceremony.status in t.from_]
    for row in rows:
        if row.trigger == trigger:
            return row
    allowed = sorted({row.trigger for row in rows})
    raise InvalidTransition(
        f"ceremony {ceremony.ceremony_id} is {ceremony.status}: {trigger} is not possible now",
        state=ceremony.status,
        event=trigger,
        allowed=allowed,
    )


def check_stories(config: CeremonyConfig, states: Mapping[str, str | None], *, early: Collection[str]) -> None:
    """Returns when these stories may be reviewed together (PL-60).

    Args:
        states: by story; None for one that does not exist.
        early: those whose work has not begun.

    Raises:
        InvalidInput: too few or too many, or one that is missing or past its planning; all of them are named.
    """
    if not config.stories.min <= len(states) <= config.stories.max:
        raise InvalidInput(
            f"a review takes {config.stories.min} to {config.stories.max} stories, not {len(states)}", field="story_ids"
        )
    wrong = {name: state for name, state in states.items() if name not in early}
    if wrong:
        told = ", ".join(f"{name} ({state or 'does not exist'})" for name, state in sorted(wrong.items()))
        raise InvalidInput(
            f"only stories whose work has not begun are reviewed; not {told}",
            field="story_ids",
            value=sorted(wrong),
        )
