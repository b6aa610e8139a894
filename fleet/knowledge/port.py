"""Port: what is known of files, by the digest of their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleet.knowledge.facts import FactKey, FileFacts


class FactStore(Protocol):
    """A cache: everything in it may be gone at any moment, and can be made again from the files.

    What is damaged is not there. Both methods raise StoreUnavailable or StoreFull: nothing is lost then but time.
    """

    async def read(self, keys: Sequence[FactKey]) -> dict[FactKey, FileFacts]:
        """The facts of those keys that are there."""
        ...

    async def keep(self, facts: Mapping[FactKey, FileFacts]) -> None:
        """These facts are found by `read` for a while; what was kept longest ago makes room for them."""
        ...
