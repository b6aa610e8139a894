"""Projects and epics as people write them (PL-2, AP-50, AP-51)."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Rigor

Title = Annotated[str, Field(min_length=1, max_length=200)]
Description = Annotated[str, Field(max_length=20_000)]
Languages = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=40)], ...], Field(max_length=20)]
Priority = Annotated[int, Field(ge=1, le=10)]
Goal = Annotated[str, Field(max_length=4000)]


class _Text(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @field_validator("*")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, str) and any(ord(c) < 32 and c not in "\n\t" for c in value):
            raise ValueError("control characters other than newline and tab are refused")
        return value


class RepoText(_Text):
    """The repository that the stories of a project work on."""

    provider: Annotated[str, Field(min_length=1, max_length=40)] = "local"
    url: Annotated[str, Field(min_length=1, max_length=4096)]
    default_branch: Annotated[str, Field(min_length=1, max_length=200)] = "main"


class ProjectText(_Text):
    """A project that is to be created."""

    title: Title
    description: Description = ""
    repo: RepoText | None = None
    default_rigor: Rigor = "L1"
    default_lifecycle: Annotated[str, Field(min_length=1, max_length=60)] = "agile"
    languages: Languages = ()
    constraints: dict[str, Any] = Field(default_factory=dict)


class ProjectChanges(_Text):
    """What shall be otherwise in a project; what is left out stays."""

    title: Title | None = None
    description: Description | None = None
    repo: RepoText | None = None
    default_rigor: Rigor | None = None
    default_lifecycle: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    languages: Languages | None = None
    constraints: dict[str, Any] | None = None
    status: Literal["active", "archived"] | None = None


class EpicText(_Text):
    """An epic that is to be created."""

    title: Title
    description: Description = ""
    goal: Goal = ""
    priority: Priority = 5


class EpicChanges(_Text):
    """What shall be otherwise in an epic. A person only archives or cancels it; the rest follows from its stories."""

    title: Title | None = None
    description: Description | None = None
    goal: Goal | None = None
    priority: Priority | None = None
    status: Literal["archived", "cancelled"] | None = None


Text = TypeVar("Text", bound=_Text)


def read_text(form: type[Text], data: Any, *, what: str) -> Text:
    """The text of this form; InvalidInput lists every problem with its pointer (GL-7, GL-14, GL-15)."""
    if not isinstance(data, dict):
        raise InvalidInput(f"{what} is a mapping of fields", problems=[])
    try:
        return form.model_validate({str(name): _nfc(value) for name, value in data.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    except ValidationError as error:
        problems = [
            {"pointer": "/" + "/".join(str(p) for p in e["loc"]), "message": e["msg"]}
            for e in error.errors(include_url=False)
        ]
        first = "; ".join(f"{p['pointer']}: {p['message']}" for p in problems)
        raise InvalidInput(f"{what} is not valid: {first}", problems=problems) from error


def _nfc(value: Any) -> Any:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value
