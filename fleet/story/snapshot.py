"""The state of a story as bytes and back, so that a long story need not be folded from its first event (EV-6)."""

from __future__ import annotations

from functools import cache

from pydantic import TypeAdapter

from fleet.digest import digest_of_json
from fleet.errors import LogCorrupted
from fleet.story.state import StoryState

__all__ = ["decode_state", "encode_state", "state_schema"]

_FOLD = 16
"""Raise it when `evolve` gives another state for the same events: a snapshot of the old meaning is then not read."""


@cache
def _adapter() -> TypeAdapter[StoryState]:
    return TypeAdapter(StoryState)


@cache
def state_schema() -> str:
    """The name of the form of `encode_state`; another one whenever the shape or the meaning of the state changes."""
    return f"story-state/{_FOLD}/{digest_of_json(_adapter().json_schema()).hex[:16]}"


def encode_state(state: StoryState) -> bytes:
    """The state as JSON; `decode_state` gives an equal one."""
    return _adapter().dump_json(state)


def decode_state(data: bytes) -> StoryState:
    """The state of these bytes. LogCorrupted when they are not of the form that `state_schema` names."""
    try:
        return _adapter().validate_json(data)
    except ValueError as error:
        raise LogCorrupted(f"the snapshot of a story cannot be read: {error}") from error
