"""Secrets taken out of text that comes in pieces, also where a secret is split over pieces (CX-75)."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.redaction.redact import MAX_LINE_CHARS, blocks, redact, safe_cut
from fleet.redaction.secret_patterns import SECRET_PATTERNS, SecretPattern


class RedactingStream:
    """What goes in comes out without secrets, line by line; joined it is `redact` of the whole, however it was cut.

    Held back are a line that has not ended, and a block that may go on, 64 KiB of it at most. Not thread-safe.
    """

    def __init__(self, *, patterns: Sequence[SecretPattern] = SECRET_PATTERNS) -> None:
        self._patterns = patterns
        self._held = ""

    def feed(self, text: str) -> str:
        """What is certain now; often nothing."""
        self._held += text
        if "\n" not in text and len(self._held) <= MAX_LINE_CHARS:
            return ""
        return self._release(self._certain())

    def flush(self) -> str:
        """The rest: the stream is over."""
        return self._release(len(self._held))

    def _certain(self) -> int:
        end = self._held.rfind("\n") + 1
        # What follows the last line break may be a line that is too long to wait for.
        while len(self._held) - end > MAX_LINE_CHARS:
            end = safe_cut(self._held, end)
        # The last one first: holding it back may cut one before it, which then is held too.
        for block, _ in sorted(blocks(self._held), reverse=True):
            if block.is_open or block.end > end:
                end = min(end, self._held.rfind("\n", 0, block.told_at) + 1)
        return end

    def _release(self, end: int) -> str:
        ready, self._held = self._held[:end], self._held[end:]
        return redact(ready, patterns=self._patterns).text if ready else ""
