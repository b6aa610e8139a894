"""What the tools of the MCP server have in common: the form of their arguments, and what stands for one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fleet.kernel.ids import Principal, StoryId

IdempotencyKey = Annotated[str, Field(alias="idempotencyKey", min_length=8, max_length=128)]


class McpArgs(BaseModel):
    """Arguments of one operation; an unknown one, such as `approved`, is refused (RT-32)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class OfStory(McpArgs):
    """About one story, which the caller has to see."""

    story_id: Annotated[StoryId, Field(alias="storyId")]


@dataclass(frozen=True, slots=True)
class McpOperation:
    """One tool: how it is told of, what it takes, what it does."""

    description: str
    args: type[BaseModel]
    do: Callable[[Any, Principal], Awaitable[Any]]
    is_read_only: bool = False
