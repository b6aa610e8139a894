"""The terms of one work session: what its engine holds, and what the session may use. Fixed when it begins."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.kernel.types import Frozen, Rigor
from fleet.models.chat import ToolOffer

BYTES_PER_TOKEN = 3
"""As `estimate_tokens` counts: an upper guess, so that no limit in characters is a lie in tokens."""
_TURNS: dict[Rigor, int] = {"L3": 120}
_TURNS_ELSE = 60


def _is_empty(value: object) -> bool:
    return not value


class SessionTerms(Frozen):
    """Limits of a session, in tokens where nothing else is said."""

    window: Annotated[int, Field(ge=1024)]
    """Prompt and reply together, as the engine serves them and the budget of a step lets them be."""
    output: Annotated[int, Field(ge=64)]
    """Longest reply."""
    prompt: Annotated[int, Field(ge=0)] = 0
    """What stands before the first turn: rules, tools and material."""
    turns: Annotated[int, Field(ge=1)] = _TURNS_ELSE
    """Replies."""
    prompt_tokens: Annotated[int, Field(ge=1)] = 2_000_000
    """Of all prompts together; those that the engine had in its cache count a tenth."""
    output_tokens: Annotated[int, Field(ge=1)] = 60_000
    """Of all replies together."""
    wall_s: Annotated[int, Field(ge=1)] = 2_700
    """Time of replies and commands as recorded; a wait for a next owner counts nothing."""
    sandbox_s: Annotated[int, Field(ge=1)] = 1_800
    """Time of commands."""
    is_formatted: bool = False
    """Whether the first submission is answered with what the repository's own formatter would change."""
    is_linted: bool = False
    """Whether it is also answered with what the repository's own linters say of the changed files."""
    outside: tuple[ToolOffer, ...] = Field(default=(), exclude_if=_is_empty)
    """Operations beside the tools of every session: looks at what the policy lists outside of the files."""

    @property
    def run_chars(self) -> int:
        """Most that a command shows of its output, in characters."""
        return BYTES_PER_TOKEN * _share(self.window, 3, least=1_000, most=8_000)

    @property
    def read_chars(self) -> int:
        """Most that one reading shows of a file, in characters."""
        return BYTES_PER_TOKEN * _share(self.window, 6, least=2_000, most=32_000)

    @property
    def search_chars(self) -> int:
        """Most that a search or a listing shows, in characters."""
        return BYTES_PER_TOKEN * _share(self.window, 2, least=800, most=8_000)

    @property
    def largest_result(self) -> int:
        """The most that one call adds to the prompt."""
        return self.read_chars // BYTES_PER_TOKEN

    @property
    def mask_above(self) -> int:
        """Old results are masked once the prompt is longer than this."""
        return self.window * 60 // 100

    @property
    def crowded_above(self) -> int:
        """A summary takes the place of the conversation once the prompt is longer than this."""
        return self.window * 80 // 100

    @property
    def worth_summing(self) -> int:
        """A conversation of fewer tokens is not worth a summary: that would free too little."""
        return self.window * 30 // 100

    @property
    def mask_down_to(self) -> int:
        """So many tokens the prompt may have after old results were masked."""
        return self.window * 35 // 100


def terms_for(*, window: int, output: int, rigor: Rigor) -> SessionTerms:
    """The terms on an engine of this window; a reply takes a third of it at most."""
    return SessionTerms(
        window=window,
        output=max(64, min(output, window // 3)),
        turns=_TURNS.get(rigor, _TURNS_ELSE),
        is_formatted=True,
        is_linted=True,
    )


def _share(window: int, percent: int, *, least: int, most: int) -> int:
    # In a small window the least that is useful must still leave room for a conversation.
    return min(max(window * percent // 100, min(least, window // 12)), most)
