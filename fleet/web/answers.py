"""What came back, read within bounds: JSON objects, waits that a server asks for, and the lack of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tenacity import RetryCallState

_MAX_WAIT_S = 30.0


class Unanswered(Exception):  # noqa: N818 - a finding for the caller to word, never seen outside of an adapter
    """No answer came, and what was asked for may have been done or not; the text says why."""

    def __init__(self, why: str, *, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        """Seconds that the server asks to wait, if it does."""


def document_of(data: bytes) -> dict[str, Any] | None:
    """The JSON object, or None when it is none."""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def seconds_of(retry_after: str | None) -> float | None:
    """The seconds that a header Retry-After names; None of a date, and where there is none."""
    return float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,4}", retry_after.strip()) else None


def pauses(first_s: float, *, most_s: float = _MAX_WAIT_S) -> Callable[[RetryCallState], float]:
    """How long tenacity waits: as long as `Unanswered` asks for, else ever longer and by chance.

    Chance keeps those apart who lost the same server at the same moment.
    """
    from tenacity import wait_exponential, wait_random

    growing = wait_exponential(multiplier=first_s, max=most_s) + wait_random(0, first_s)

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_s if isinstance(error, Unanswered) else None
        return growing(state) if asked is None else min(asked, most_s)

    return wait_s
