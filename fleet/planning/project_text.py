"""Projects and epics as people write them; texts are kept in NFC (PL-2, AP-50, AP-51, GL-7)."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fleet.kernel.types import Rigor

Title = Annotated[str, Field(min_length=1, max_length=200)]
Description = Annotated[str, Field(max_length=20_000)]
Languages = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=40)], ...], Field(max_length=20)]
Priority = Annotated[int, Field(ge=1, le=10)]
Goal = Annotated[str, Field(max_length=4000)]


class _Text(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _normalize(cls, value: Any) -> Any:
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value

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
