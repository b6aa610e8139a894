"""The text of a story as a person writes it, checked as a whole."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fleet.events.approval import ApprovalRequested
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted
from fleet.events.task import TaskTransitioned
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Rigor
from fleet.story.state import StoryState


class StoryText(BaseModel):
    """The fields of a story as a person writes them (AP-53); aliases of GL-6 are accepted and translated."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, str_strip_whitespace=True)

    title: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(alias="brief", max_length=20_000)] = ""
    acceptance_criteria: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...], Field(alias="ac", max_length=50)
    ] = ()
    constraints: dict[str, Any] = Field(default_factory=dict)
    tags: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=40)], ...], Field(max_length=20)] = ()
    rigor: Rigor = "L1"
    lifecycle: str = "agile"
    language: str = "en"
    priority: Annotated[int, Field(ge=1, le=10)] = 5
    hold: bool = False
    project_id: str = "pr-default"
    epic_id: str = "ep-inbox"

    @field_validator("rigor", mode="before")
    @classmethod
    def _rigor(cls, value: Any) -> Any:
        names = {"experimental": "L0", "standard": "L1", "high": "L2", "critical": "L3"}
        return names.get(value.lower(), value.upper()) if isinstance(value, str) else value

    @field_validator("title", "description", "acceptance_criteria", "tags")
    @classmethod
    def _text(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if any(ord(c) < 32 and c not in "\n\t" for text in texts for c in text):
            raise ValueError("control characters other than newline and tab are refused")
        return value


def parse(data: Any) -> StoryText:
    """The story's text; InvalidInput lists every problem with its pointer (GL-7, GL-15)."""

    def nfc(value: Any) -> Any:
        match value:
            case str():
                return unicodedata.normalize("NFC", value)
            case list():
                return [nfc(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
            case _:
                return value

    if not isinstance(data, dict):
        raise InvalidInput("a story is a mapping with title, description and acceptance_criteria", problems=[])
    try:
        text = StoryText.model_validate({str(k): nfc(v) for k, v in data.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        digest_of_json(text.constraints)
    except ValidationError as error:
        problems = [
            {"pointer": "/" + "/".join(str(p) for p in e["loc"]), "message": e["msg"]}
            for e in error.errors(include_url=False)
        ]
        first = "; ".join(f"{p['pointer']}: {p['message']}" for p in problems)
        raise InvalidInput(f"the story is not valid: {first}", problems=problems) from error
    except TypeError as error:
        raise InvalidInput(
            f"/constraints: {error}", problems=[{"pointer": "/constraints", "message": str(error)}]
        ) from error
    return text


def staleness(state: StoryState, payloads: Sequence[Payload]) -> str | None:
    """Why these events no longer follow from the state; None when they do.

    A review or a derivation takes a while. What a person did to the same task or plan meanwhile stands, and the work is
    planned anew from there (LC-8): no task makes a step from a state that it has left, no plan takes the place of one
    that it does not know of, and nobody is asked to accept work that is not up for it.
    """
    moved: dict[str, str] = {}
    for payload in payloads:
        match payload:
            case TaskTransitioned():
                now = moved.get(payload.task_id) or _state_of(state, payload.task_id)
                if now not in (None, payload.from_):
                    return f"task {payload.task_id} is {now} by now, and {payload.action} starts from {payload.from_}"
                moved[payload.task_id] = payload.to
            case PlanAdopted():
                if payload.supersedes != state.plan_id:
                    return f"plan {state.plan_id} was adopted before plan {payload.plan_id}, which does not know of it"
            case ApprovalRequested():
                now = _state_of(state, payload.subject.id) if payload.gate == "task_acceptance" else None
                if now not in (None, "pending_po_approval"):
                    return f"task {payload.subject.id} is {now} by now, so nobody is asked to accept its work"
            case _:
                pass
    return None


def _state_of(state: StoryState, task_id: str) -> str | None:
    task = state.tasks.get(task_id)
    return task.state if task is not None else None
