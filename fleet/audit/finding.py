"""What an audit can find."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How stored data differs from what was recorded (EV-32)."""

    ALTERED = "altered"
    """Bytes were changed."""
    MISSING = "missing"
    """An entry, a checkpoint or its copy is gone from where others show that it was."""
    REORDERED = "reordered"
    """Entries stand at versions that they were not written for."""
    FORKED = "forked"
    """Another history stands where one was attested."""
    ROLLED_BACK = "rolled back"
    """It ends before what was attested."""
    DELETED = "deleted"
    """A whole stream is gone."""
    BAD_SIGNATURE = "bad signature"
    """It was not signed by the notary's key."""


@dataclass(frozen=True, slots=True)
class LogFinding:
    """One difference: what it is, in which stream (or `checkpoint`, `loss`) and at which version or sequence."""

    verdict: Verdict
    subject: str
    version: int | None
    detail: str

    def __str__(self) -> str:
        place = self.subject if self.version is None else f"{self.subject} version {self.version}"
        return f"{self.verdict.value}: {place}: {self.detail}"

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {
            "verdict": self.verdict.value,
            "subject": self.subject,
            "version": self.version,
            "detail": self.detail,
        }
