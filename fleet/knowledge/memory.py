"""In-memory twin of the port FactStore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.knowledge.facts import FactKey, FileFacts


class MemoryFactStore:
    """Facts kept as long as the object. Implements the port FactStore.

    Args:
        max_files: facts of so many files are kept.
    """

    def __init__(self, *, max_files: int = 20_000) -> None:
        self._held: dict[FactKey, FileFacts] = {}
        self._max_files = max_files

    async def read(self, keys: Sequence[FactKey]) -> dict[FactKey, FileFacts]:
        """See the port."""
        return {key: self._held[key] for key in keys if key in self._held}

    async def keep(self, facts: Mapping[FactKey, FileFacts]) -> None:
        """See the port."""
        for key, known in facts.items():
            self._held.pop(key, None)
            self._held[key] = known
        while len(self._held) > self._max_files:
            del self._held[next(iter(self._held))]
