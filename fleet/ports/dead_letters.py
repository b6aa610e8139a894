"""Port: work that fails each time it is tried, set aside for a person (EV-22, EV-23)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fleet.ids import StreamId

__all__ = ["MAX_ATTEMPTS", "DeadLetter", "DeadLetters", "Failure", "LetterSource", "is_letter_source"]

MAX_ATTEMPTS = 5
"""After as many failed attempts the work is set aside."""

LetterSource: TypeAlias = str
"""`projector`, `commands`, or `notifications:<target>`; each target fails by itself."""

_SOURCE = re.compile(r"projector|commands|notifications:[a-z][a-z0-9-]{0,39}")


def is_letter_source(text: str) -> bool:
    """Whether work of this name can be set aside."""
    return _SOURCE.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Failure:
    """One deterministic failure: `version` of `stream` could not be handled by `source` (0 for a command)."""

    source: LetterSource
    stream: StreamId
    version: int
    code: str
    reason: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failure that happened `MAX_ATTEMPTS` times; `letter_id` is what `retry` takes."""

    letter_id: str
    failure: Failure
    attempts: int
    first_seen_ms: int
    last_seen_ms: int


class DeadLetters(Protocol):
    """Counts of failures and parked work; both outlive every process. Nothing is lost by parking: the log has it."""

    async def failed(self, failure: Failure) -> DeadLetter | None:
        """One more attempt failed. The letter once it is parked: written exactly once, on attempt `MAX_ATTEMPTS`.

        Attempts are counted for each (source, stream, version). Outages are never reported here (EV-23).
        """
        ...

    async def parked(self, source: LetterSource) -> dict[StreamId, DeadLetter]:
        """Streams at which this consumer stands still, at the version before the letter's."""
        ...

    async def letter(self, source: LetterSource, stream: StreamId, version: int) -> DeadLetter | None:
        """The letter of exactly this piece of work; None when there is none, or no longer."""
        ...

    async def letters(self) -> list[DeadLetter]:
        """Every letter, oldest first."""
        ...

    async def retry(self, letter_id: str) -> DeadLetter:
        """The letter and its count are gone and the consumer may go on. NotFound when there is no such letter."""
        ...
