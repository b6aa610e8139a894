"""In-memory twin of the port AccessTrail."""

from __future__ import annotations

from fleet.tools import SecretAccess

__all__ = ["MemoryAccessTrail"]


class MemoryAccessTrail:
    """Audit lines of secrets, kept as long as the object. Implements the port AccessTrail."""

    def __init__(self) -> None:
        self._lines: list[SecretAccess] = []

    async def record(self, line: SecretAccess) -> None:
        """The line is kept."""
        self._lines.append(line)

    async def newest(self, *, limit: int = 100) -> list[SecretAccess]:
        """The last lines, the newest first."""
        return self._lines[::-1][:limit]
