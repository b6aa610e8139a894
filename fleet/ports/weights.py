"""Ports: files of model weights on this machine, named by what is in them, and the places they come from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from fleet.models.weights import UrlSource, Weights, WheelSource

__all__ = ["FoundWeights", "WeightsDraft", "WeightsSource", "WeightsState", "WeightsStore"]

WeightsState = Literal["present", "partial", "missing", "wrong_digest"]


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """What is on this machine of one file."""

    state: WeightsState
    """`present` only when the bytes were once read whole and had the digest, and the file has not changed since."""
    bytes_here: int
    path: str
    """Where the file is, or will be."""


class WeightsDraft(Protocol):
    """The beginning of a file that is being fetched; held by one caller at a time, kept when it is let go of."""

    @property
    def size_bytes(self) -> int:
        """How much of the file is here; a fetch goes on there."""
        ...

    async def append(self, piece: bytes) -> None:
        """The piece follows what was here. StoreFull, StoreUnavailable; what was appended before is kept."""
        ...

    async def finish(self) -> str:
        """The path of the whole file, whose digest was compared. The draft is used up, also by an error.

        Raises:
            ConfigError: the digest or the size differs; what was fetched is removed. Details: expected, found.
        """
        ...


class WeightsStore(Protocol):
    """Weights by sha256. Any number of processes may share one."""

    async def look(self, weights: Weights, *, thorough: bool = False) -> FoundWeights:
        """What is here. With `thorough` every byte of a whole file is read; else only a changed file is read again."""
        ...

    def claim(self, weights: Weights) -> AbstractAsyncContextManager[WeightsDraft]:
        """The draft of this file, once no other process holds it. A claim ends with its process, however that ends."""
        ...

    async def free_bytes(self) -> int:
        """Room that is left for further files."""
        ...


class WeightsSource(Protocol):
    """Where the bytes come from."""

    def extra_bytes(self, weights: Weights, source: UrlSource | WheelSource) -> int:
        """Room that fetching needs for a while, beside the file itself."""
        ...

    def pieces(self, weights: Weights, source: UrlSource | WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """The bytes of the file from `start` on, in pieces of some MiB at most.

        Raises:
            ModelUnavailable: the source cannot be reached, lacks the file, or broke off; with `permanent` in its
                details when to try again is no use. Names what to do.
            StoreFull: there is no room for what is kept for a while.
        """
        ...

    async def forget(self, weights: Weights) -> None:
        """What was kept for a while is gone: the file is whole, or was another one."""
        ...
