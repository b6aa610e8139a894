"""What came back, read within bounds: JSON objects, waits that a server asks for, and the lack of an answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tenacity import RetryCallState

_MAX_WAIT_S = 30.0


class Unanswered(Exception):  # noqa: N818 - a finding for the caller to word, never seen outside of an adapter
    """No answer came, and what was asked for may have been done or not; the text says why."""

    def __init__(
        self,
        why: str,
        *,
        wait_s: float | None = None,
        is_distrust: bool = False,
        kind: str = "",
        was_sent: bool = True,
    ) -> None:
        super().__init__(why)
        self.is_distrust = is_distrust
        """Whether the certificate of the server is what failed."""
        self.kind = kind
        """Name of the error of the driver, for messages."""
        self.was_sent = was_sent
        """Whether the server may have seen the request; False only where it surely has not."""
        self.wait_s = wait_s
        """Seconds that the server asks to wait, if it does."""


def document_of(data: bytes) -> dict[str, Any] | None:
    """The JSON object, or None when it is none."""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def seconds_of(retry_after: str | None, *, date: str | None = None) -> float | None:
    """Seconds that a header Retry-After asks to wait, which may be below zero; None where it says none.

    Args:
        date: the server's own clock as its header Date shows it: ours may differ by minutes.

    Source: RFC 9110, section 10.2.3.
    """
    text = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]{1,15}", text):
        return float(text)
    until_s = epoch_of(text)
    return None if until_s is None else until_s - (epoch_of(date) or time.time())


def epoch_of(date: str | None) -> float | None:
    """Seconds since 1970 of a date in a header; None where it is none."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, OverflowError):
        return None


def pauses(first_s: float, *, most_s: float = _MAX_WAIT_S) -> Callable[[RetryCallState], float]:
    """How long tenacity waits: as long as `Unanswered` asks for, else ever longer and by chance.

    Chance keeps those apart who lost the same server at the same moment.
    """
    from tenacity import wait_exponential, wait_random

    growing = wait_exponential(multiplier=first_s, max=most_s) + wait_random(0, first_s)

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_s if isinstance(error, Unanswered) else None
        return growing(state) if asked is None else min(max(asked, 0.0), most_s)

    return wait_s
