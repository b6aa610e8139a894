"""What a takeover says about a story: why it happened, and whether it counts against the story (LC-94, EV-230)."""

from __future__ import annotations

from fleet.kernel.types import TakeoverCause
from fleet.story.state import StoryState

MAX_TAKEOVERS = 3
"""Counted takeovers in a row without any progress until the story is parked as a crash loop (LC-94)."""


def takeover_cause(previous: str, owner: str) -> TakeoverCause:
    """Why `owner` takes over from `previous` (both `<shard>/<incarnation>`, `previous` empty before the first).

    `restart`: an earlier incarnation of the same shard held the story. `expired`: another shard held it, or this very
    incarnation, which had to let go.
    """
    if not previous:
        return "new"
    return "restart" if previous != owner and _shard(previous) == _shard(owner) else "expired"


def _shard(owner: str) -> str:
    return owner.split("/", 1)[0]


def counts_against(state: StoryState, owner: str) -> bool:
    """Whether the end of the last owner counts against this story when `owner` takes it over.

    It does if that owner was advancing the story: a step is under way, or nothing at all was recorded since it took
    the story. It does not for an owner that lives and takes its own story up again. A story that owes nothing is
    told apart by `plan`, which knows what is owed.
    """
    if state.disposition != "active" or state.closed or state.start is None or owner == state.owner:
        return False
    return bool(state.open_steps) or (bool(state.owner) and state.owned_version == state.version)


def is_suspect(state: StoryState, owner: str) -> bool:
    """Whether one more crash after this takeover would park the story: it may be what kills its owners."""
    return state.takeovers_without_progress + counts_against(state, owner) == MAX_TAKEOVERS - 1
