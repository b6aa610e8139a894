"""In-memory twins of the ports WeightsStore and WeightsSource."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from fleet.errors import ConfigError, FleetError, ModelUnavailable, StoreFull
from fleet.models.weights import UrlSource, Weights, WheelSource
from fleet.ports import FoundWeights, WeightsDraft

__all__ = ["MemoryWeightsSource", "MemoryWeightsStore"]


class MemoryWeightsStore:
    """Weights in dictionaries. Implements the port WeightsStore.

    Args:
        room_bytes: what fits in all; an append over it is StoreFull.
    """

    def __init__(self, *, room_bytes: int = 1 << 40) -> None:
        self.whole: dict[str, bytes] = {}
        """Files by sha256; a test may put damaged ones here."""
        self.drafts: dict[str, bytearray] = defaultdict(bytearray)
        self.room_bytes = room_bytes
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def look(self, weights: Weights, *, thorough: bool = False) -> FoundWeights:
        """See `WeightsStore.look`."""
        path = f"memory/{weights.sha256}/{weights.file}"
        data = self.whole.get(weights.sha256)
        if data is None:
            size = len(self.drafts.get(weights.sha256, b""))
            return FoundWeights("partial" if size else "missing", size, path)
        is_right = hashlib.sha256(data).hexdigest() == weights.sha256
        return FoundWeights("present" if is_right else "wrong_digest", len(data), path)

    @asynccontextmanager
    async def claim(self, weights: Weights) -> AsyncGenerator[WeightsDraft]:
        """See `WeightsStore.claim`."""
        async with self._locks[weights.sha256]:
            yield _MemoryDraft(self, weights)

    async def free_bytes(self) -> int:
        """See `WeightsStore.free_bytes`."""
        return self.room_bytes - sum(map(len, (*self.whole.values(), *self.drafts.values())))


class _MemoryDraft:
    def __init__(self, store: MemoryWeightsStore, weights: Weights) -> None:
        self._store = store
        self._weights = weights

    @property
    def size_bytes(self) -> int:
        return len(self._store.drafts[self._weights.sha256])

    async def append(self, piece: bytes) -> None:
        if len(piece) > await self._store.free_bytes():
            raise StoreFull("no room in memory; give the store more")
        self._store.drafts[self._weights.sha256] += piece

    async def finish(self) -> str:
        weights = self._weights
        data = bytes(self._store.drafts.pop(weights.sha256, b""))
        found = hashlib.sha256(data).hexdigest()
        if found != weights.sha256:
            raise ConfigError(
                f"{weights.file} has sha256 {found}, but {weights.sha256} is pinned: what was fetched is removed",
                file=weights.file,
                expected=weights.sha256,
                found=found,
            )
        self._store.whole[weights.sha256] = data
        return (await self._store.look(weights)).path


class MemoryWeightsSource:
    """Files by the address or package of their source, with failures on demand. Implements the port WeightsSource.

    Args:
        files: bytes by `url` or `package`.
        piece_bytes: length of one piece.
    """

    def __init__(self, files: Mapping[str, bytes], *, piece_bytes: int = 4) -> None:
        self._files = dict(files)
        self._piece_bytes = piece_bytes
        self.failures: list[tuple[int, FleetError]] = []
        """Each is raised once, in this order, after so many pieces of one reading."""
        self.starts: list[int] = []
        """Where each reading began."""
        self.forgotten = 0

    def extra_bytes(self, weights: Weights, source: UrlSource | WheelSource) -> int:
        """See `WeightsSource.extra_bytes`: nothing."""
        return 0

    async def pieces(self, weights: Weights, source: UrlSource | WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """See `WeightsSource.pieces`."""
        self.starts.append(start)
        name = source.url if isinstance(source, UrlSource) else source.package
        if name not in self._files:
            raise ModelUnavailable(f"{name} is not there", permanent=True)
        rest = self._files[name][start:]
        after, error = self.failures.pop(0) if self.failures else (len(rest), None)
        for number in range(0, len(rest), self._piece_bytes):
            if error is not None and number >= after * self._piece_bytes:
                raise error
            yield rest[number : number + self._piece_bytes]
        if error is not None:
            raise error

    async def forget(self, weights: Weights) -> None:
        """See `WeightsSource.forget`."""
        self.forgotten += 1
