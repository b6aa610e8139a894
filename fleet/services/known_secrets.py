"""The values that this process has handed out, so that they can be taken out of what comes back."""

from __future__ import annotations

from collections import deque

from fleet.context import MIN_SECRET_CHARS, RedactedText, forms_of, redact, redact_known
from fleet.ports import SecretValue

__all__ = ["KnownSecrets"]

_KEPT_VERSIONS = 8
"""A run may still print a value that was rotated while it ran."""


class KnownSecrets:
    """Redacts every value that was registered, its usual encodings, and what looks like a secret (CX-60)."""

    def __init__(self) -> None:
        self._values: dict[str, deque[str]] = {}
        self._forms: frozenset[str] = frozenset()

    def register(self, value: SecretValue) -> bool:
        """From now on the value is taken out of text; false when it is too short to be told from ordinary text.

        The last eight values of one name are kept for the life of this object.
        """
        text = value.reveal()
        if len(text) < MIN_SECRET_CHARS:
            return False
        kept = self._values.setdefault(value.name, deque(maxlen=_KEPT_VERSIONS))
        if text not in kept:
            kept.append(text)
            self._forms = frozenset[str]().union(*(forms_of(t) for texts in self._values.values() for t in texts))
        return True

    @property
    def longest(self) -> int:
        """Characters of the longest form: who redacts a stream in pieces keeps so many of them back (CX-75)."""
        return max(map(len, self._forms), default=0)

    def redact(self, text: str) -> RedactedText:
        """The text without any of the values or what looks like a secret, and how many places were taken out."""
        known = redact_known(text, self._forms)
        found = redact(known.text)
        return RedactedText(found.text, known.places + len(found.spans))

    def __repr__(self) -> str:
        return f"KnownSecrets({len(self._values)} names)"
